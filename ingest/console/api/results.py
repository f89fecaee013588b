"""The results of the API's operations, where they are not what a service returns."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from ingest.console.api import lists
from ingest.console.api.lists import Listing
from ingest.console.services.addresses import EntityLink
from ingest.console.services.entity_view import EntityView, EntryView
from ingest.console.services.event_query import QueryResult
from ingest.console.services.failures import ListedFailure
from ingest.console.services.overview import Counts as AllCounts
from ingest.console.services.overview import Overview
from ingest.console.ui import masking
from ingest.entities.timeline import Erasure as EntityErasure
from ingest.entities.timeline import Row, StatusChange
from ingest.store.bulk.replay import Counts, Operation
from ingest.store.failures.records import State
from ingest.store.reports.behind import Backlog
from ingest.store.reports.totals import DeliveryCounts, EventCounts, JobCounts, Stats
from ingest.store.search.counts import Count
from ingest.store.search.events import ListedEvent


class EventList(Listing[ListedEvent]):
    """A page of events."""

    previous_cursor: str | None
    """The value of `cursor` for the page before; None: nothing is known to be there."""
    searched_to: datetime | None
    """How far the search got before its time was up; `next_cursor` goes on from there. None: it
    came to its end, or the page is full."""
    count: Count
    """The number of all events that match."""

    @classmethod
    def page(
        cls, result: QueryResult, *, oldest_first: bool, as_of: datetime, masked: bool
    ) -> "EventList":
        """Return the page that a search found."""
        page = result.page
        cursors = lists.older(page.older), lists.newer(page.newer)
        return cls(
            items=masking.events((*page.named, *page.events), masked=masked),
            next_cursor=cursors[oldest_first],
            previous_cursor=cursors[not oldest_first],
            searched_to=page.reached,
            count=result.count,
            as_of=as_of,
        )


class FailureList(Listing[ListedFailure]):
    """Groups of failures."""

    counts: Mapping[State, int]
    """How many groups are in each state."""
    examined: int
    """How many failing jobs, the newest, were counted."""
    is_whole: bool
    """Whether all failing jobs were examined; otherwise the newest were."""


class EntityEvents(Listing[EntryView]):
    """A page of the events that concern something."""

    previous_cursor: str | None
    """The value of `cursor` for the page before; None: this is the first one."""


class EntityDetails(BaseModel):
    """All that is stored of an order, conversation, contact, message or phone number."""

    entity: EntityLink
    order: Literal["newest", "oldest"]
    source: str | None
    """The sender whose events alone are shown; None: those of all."""
    total: int
    """Events that concern it."""
    sources: Mapping[str, int]
    """The number of events by sender."""
    events: EntityEvents
    """A page of its events."""
    rows: tuple[Row, ...]
    """What the read model has of it."""
    changes: tuple[StatusChange, ...]
    """Of its status, newest first."""
    linked: tuple[EntityLink, ...]
    """What its rows lead to."""
    erasures: tuple[EntityErasure, ...]
    """Those that erased something of it."""
    looked_back_to: datetime | None
    """How far back events of senders without a read model were looked for; None: to the first."""
    is_cut: bool
    """Whether it has more messages or orders than were followed to their events: the newest."""
    leaves_unfinished: bool
    """Whether there are more events that were not worked on than were looked through."""
    masked: bool

    @classmethod
    def of(cls, view: EntityView, *, as_of: datetime) -> "EntityDetails":
        """Return what is known of an entity, with its events as a list."""
        cursors = lists.older(view.older), lists.newer(view.newer)
        is_oldest = view.order == "oldest"
        events = EntityEvents(
            items=view.entries,
            next_cursor=cursors[is_oldest],
            previous_cursor=cursors[not is_oldest],
            as_of=as_of,
        )
        known = {name: getattr(view, name) for name in cls.model_fields if name != "events"}
        return cls(events=events, **known)


@dataclass(frozen=True, slots=True, kw_only=True)
class OverviewNow(Overview):
    """Traffic over a range, and the present state."""

    stats: Stats
    """Counts since the beginning."""
    oldest_unadmitted: datetime | None
    oldest_job: datetime | None

    @classmethod
    def of(cls, overview: Overview, counts: AllCounts) -> "OverviewNow":
        """Return an overview with all counts."""
        known = {field.name: getattr(overview, field.name) for field in fields(Overview)}
        oldest = counts.oldest
        return cls(
            stats=counts.stats,
            oldest_unadmitted=oldest.unadmitted,
            oldest_job=oldest.job,
            **known,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsNow:
    """All counts since the beginning, and what is behind now."""

    deliveries: DeliveryCounts
    events: EventCounts
    jobs: JobCounts
    backlog: Backlog


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkActionResult:
    """A bulk action, or what it would change."""

    counts: Counts
    bulk_action: Operation | None
    """None: it was a dry run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """Success without a result."""

    done: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TestedChannel:
    """What came back from a test of a channel."""

    answer: str
