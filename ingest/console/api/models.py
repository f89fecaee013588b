"""The parameters, bodies and results of the API's operations."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import ConfigDict, Field

from ingest.console.api.endpoints import InputModel
from ingest.console.dependencies import LONGEST_QUERY, PAGE_SIZE
from ingest.console.services.commands import REASON_LIMIT
from ingest.console.services.ranges import Range
from ingest.console.services.refusals import Asked
from ingest.console.services.traffic import Split
from ingest.console.ui.forms import MAX_RATE, MIN_RATE
from ingest.entities.entity import LONGEST
from ingest.entities.timeline import Order, Place
from ingest.export import Form
from ingest.sources import registry
from ingest.store.bulk.replay import Counts, Operation
from ingest.store.reports.behind import Backlog
from ingest.store.reports.totals import DeliveryCounts, EventCounts, JobCounts
from ingest.store.search.counts import Count
from ingest.store.search.events import ListedEvent
from ingest.store.views import LONGEST_NAME, NAME

_MAX_LIMIT = 200
_MAX_IDS = 1_000
_LARGEST_ID = 2**63 - 1

_Text = Annotated[str, Field(max_length=LONGEST_QUERY, pattern=r"^[^\x00]*$")]
_Slug = Annotated[str | None, Field(max_length=200, pattern=r"^[^\x00]*$")]
_Reason = Annotated[str | None, Field(max_length=REASON_LIMIT, pattern=r"^[^\x00]*$")]


class EventsQuery(InputModel):
    """Which events, and which page of them."""

    q: _Text = Field("", description="the search, in the syntax of the console's search field")
    limit: int = Field(PAGE_SIZE, ge=1, le=_MAX_LIMIT)
    before: UUID | None = Field(None, description="only events older than this one")
    after: UUID | None = Field(None, description="only events newer than this one")
    sort: Literal["newest", "oldest"] = Field(
        "newest", description="which come first; of the oldest, `newer` leads to the next page"
    )


_ViewName = Annotated[str, Field(max_length=LONGEST_NAME, pattern=NAME)]


class ViewNameInput(InputModel):
    """The name of a saved view."""

    name: _ViewName


class ViewInput(ViewNameInput):
    """A search to keep for all users."""

    q: _Text = Field(description="the search, in the syntax of the console's search field")
    sort: Literal["newest", "oldest"] = "newest"


class ExportQuery(InputModel):
    """What to export, and how."""

    q: _Text = Field("", description="the search, in the syntax of the console's search field")
    format: Form = Field(Form.JSON_LINES, description="JSON lines for programs, CSV for people")
    sort: Literal["newest", "oldest"] = Field("newest", description="which come first")
    bodies: bool = Field(False, description="with the bodies as they were received")


class EntityQuery(InputModel):
    """Which of an entity's events, and in which order."""

    order: Order = Field(Order.NEWEST, description="which event comes first")
    source: _Slug = Field(None, description="only the events of this sender")
    limit: int = Field(PAGE_SIZE, ge=1, le=_MAX_LIMIT)
    before: UUID | None = Field(None, description="only events older than this one")
    after: UUID | None = Field(None, description="only events newer than this one")

    def place(self) -> Place:
        """Return what a page of its events is asked for by."""
        return Place(
            order=self.order,
            before=self.before,
            after=self.after,
            source=self.source,
            limit=self.limit,
        )


class EntityInput(InputModel):
    """Which entity is meant."""

    kind: Literal["conversation", "phone", "order", "message", "contact"]
    value: Annotated[str, Field(max_length=LONGEST, pattern=r"^[!-~]+( [!-~]+)*$")] = Field(
        description="what it is called: an id, or a phone number however it is written"
    )


class OverviewQuery(InputModel):
    """How far to look back."""

    range: Range = Range.HOUR


class TrafficQuery(OverviewQuery):
    """How far to look back, and what to tell apart."""

    by: Split = Split.PROCESSOR


class PageQuery(InputModel):
    """Which page of a list."""

    limit: int = Field(PAGE_SIZE, ge=1, le=_MAX_LIMIT)
    before: int | None = Field(None, ge=1, le=_LARGEST_ID)


_MOMENT = {"examples": ["2026-01-31T12:00:00Z", "2h"]}
_Moment = Annotated[
    str | None, Field(max_length=50, pattern=r"^[^\x00]+$", json_schema_extra=_MOMENT)
]


class RefusalPeriodQuery(InputModel):
    """Which refused requests or rejected deliveries."""

    range: Range = Field(Range.DAY, description="how far to look back from `until`")
    since: _Moment = Field(None, description="not before this time, whatever the range")
    until: _Moment = Field(None, description="before this time; left out: until now")
    source: _Slug = Field(None, description="of this source; `-`: no source is configured")
    reason: _Slug = Field(None, description="the slug in the answer, `error`")
    q: _Slug = Field(None, description="a part of reason, source, address or sentence")

    def asked(self, address: str | None = None) -> Asked:
        """Return what is asked for, of this address."""
        return Asked(
            range=self.range,
            since=self.since,
            until=self.until,
            source=self.source,
            reason=self.reason,
            address=address,
            text=self.q,
        )


class RefusalSummaryQuery(RefusalPeriodQuery):
    """Which refused requests."""

    address: _Slug = Field(
        None, description="from this address; `-`: from further ones, which are not told apart"
    )


class RefusalsQuery(RefusalSummaryQuery):
    """Which refused requests, and which page of them."""

    limit: int = Field(PAGE_SIZE, ge=1, le=_MAX_LIMIT)
    before: str | None = Field(
        None,
        max_length=2_000,
        pattern=r"^[A-Za-z0-9_-]+$",
        description="the next page: `older` of the page before it",
    )


class DeliveriesQuery(RefusalPeriodQuery):
    """Which deliveries, and which page of them."""

    state: Literal["rejected"] = Field(
        "rejected", description="those that hold no event; `/events` lists those that do"
    )
    limit: int = Field(PAGE_SIZE, ge=1, le=_MAX_LIMIT)
    before: UUID | None = Field(None, description="the next page: `older` of the page before it")


class AlertsQuery(InputModel):
    """Which alerts."""

    recovered: bool = Field(False, description="recovered ones too, of the last 30 days")
    limit: int = Field(PAGE_SIZE, ge=1, le=_MAX_LIMIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class TestedChannel:
    """What came back from a test of a channel."""

    answer: str


class ReasonInput(InputModel):
    """The reason, which the audit log keeps."""

    reason: _Reason = None


_AllJobs = Annotated[
    bool, Field(description="of named events, repeat the jobs that have succeeded, too")
]


class ReplayInput(ReasonInput):
    """How to replay an event."""

    all_jobs: _AllJobs = False


class ResendInput(ReasonInput):
    """The edited body of an event."""

    body: str = Field(description="the whole body, as text")
    number: UUID | None = Field(
        None, description="of this order: the same again sends nothing more; null: a new one"
    )
    dry_run: bool = Field(False, description="tell what it would become, and send nothing")


_GIVEN = 20
"""Numbers or ids of one kind, at most."""
_Phone = Annotated[str, Field(pattern=r"^\+?[1-9]([ .()-]?[0-9]){6,14}$")]
_PersonsId = Annotated[str, Field(max_length=200, pattern=r"^[!-~]+( [!-~]+)*$")]


def _is_given(kind: str) -> dict[str, Any]:
    return {"required": [kind], "properties": {kind: {"minItems": 1}}}


class ErasureInput(InputModel):
    """Who is to be erased: all that is given is one person."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [_is_given(kind) for kind in ("phones", "contacts", "conversations")]
        }
    )

    phones: list[_Phone] = Field(
        default_factory=list, max_length=_GIVEN, description="with the country's code"
    )
    contacts: list[_PersonsId] = Field(
        default_factory=list, max_length=_GIVEN, description="contact, user or customer ids"
    )
    conversations: list[_PersonsId] = Field(
        default_factory=list, max_length=_GIVEN, description="ids of conversations"
    )
    source: str | None = Field(
        None,
        max_length=200,
        description="only what this one sent; null: all sources",
        json_schema_extra=lambda schema: _list_sources(schema),
    )
    reason: _Reason = Field(None, description="kept, so it must not name the person")


class NothingInput(InputModel):
    """Nothing."""


_HAS_IDS: dict[str, Any] = {"required": ["ids"], "properties": {"ids": {"minItems": 1}}}
_HAS_QUERY: dict[str, Any] = {"required": ["q"], "properties": {"q": {"pattern": r"\S"}}}
_IS_EVERYTHING: dict[str, Any] = {
    "required": ["everything"],
    "properties": {"everything": {"const": True}},
}


class BulkActionInput(InputModel):
    """What to replay or discard: events by their ids, or all that match a search."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [_HAS_IDS, _HAS_QUERY, _IS_EVERYTHING],
            "not": {"allOf": [_HAS_IDS, _HAS_QUERY]},
        }
    )

    action: Literal["replay", "discard"] = "replay"
    ids: list[UUID] = Field(default_factory=list, max_length=_MAX_IDS)
    q: _Text = ""
    everything: bool = Field(
        False, description="required without `ids` and `q`: selects all dead letters"
    )
    reason: _Reason = None
    rate: float | None = Field(
        None, ge=MIN_RATE, le=MAX_RATE, allow_inf_nan=False, description="jobs per second"
    )
    all_jobs: _AllJobs = False
    dry_run: bool = Field(False, description="count, and change nothing")


def _list_types(schema: dict[str, Any]) -> None:
    """Add the types of all senders' samples to a schema; some senders' events have any type."""
    types = (name for source in registry.classes().values() for name in source.samples.types)
    schema["examples"] = [*dict.fromkeys(types), None]


def _list_sources(schema: dict[str, Any]) -> None:
    """Add the slugs of all senders to a schema."""
    schema["enum"] = [*registry.classes(), None]


class TestEventInput(InputModel):
    """Which sample to send."""

    type: str | None = Field(
        None,
        max_length=200,
        pattern=r"^[^\x00]*$",
        description="the event type; null: the sender's first sample",
        json_schema_extra=_list_types,
    )
    source: str | None = Field(
        None,
        max_length=200,
        description="the sender; null: the default source",
        json_schema_extra=_list_sources,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """A page of events, newest first."""

    events: tuple[ListedEvent, ...]
    older: UUID | None
    """The value of `before` for the next page; None: this is the last one."""
    newer: UUID | None
    """The value of `after` for the previous page; None: this is the first one."""
    searched_to: str | None
    """How far back the search got before its time was up; `older` continues from there."""
    count: Count
    """The number of all events that match."""


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
