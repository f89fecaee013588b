"""Groups of failures as page, API and commands show them: what was recorded, and what fails now."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection

from ingest.console.services.ranges import Range, Window, window
from ingest.console.ui import masking
from ingest.console.ui.paths import search_for
from ingest.sources.base import Source
from ingest.sources.titles import Title
from ingest.store.failures import fields, records
from ingest.store.failures.comparison import CommonField
from ingest.store.failures.records import (
    FailureRecord,
    Key,
    NewestAttempt,
    Note,
    ReleaseOfFailure,
    Sort,
    State,
)
from ingest.store.reports import audit_log
from ingest.store.reports import failures as failing_now
from ingest.store.reports.audit_log import Action
from ingest.store.reports.failures import TREND_SPANS, FailureGroup, Failures
from ingest.store.search import events, titles
from ingest.store.search.events import ListedEvent
from ingest.store.search.filters import EventFilter

EVENTS_SHOWN = 10
"""Events of a group on its page."""
_ACTIONS_SHOWN = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which groups are listed, and how."""

    states: Collection[State] = (State.OPEN,)
    assigned_to: str | None = None
    """Only those that are assigned to this name; None: all."""
    sort: Sort = Sort.JOBS
    range: Range = Range.DAY
    """What the trend covers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedFailure:
    """What fails in one way: a processor, a class of errors and a place in the code."""

    id: int | None
    """Its number; None: it is so new that no relay has recorded it yet."""
    state: State
    processor: str
    error_type: str
    place: str
    """The module and the function that the error was raised in; empty: there is no traceback."""
    raised_at: str | None
    """The last frame of the example's traceback, as Python spells it; None: there is none."""
    query: str
    """The search that means the events that fail so now: `q` of lists, exports and bulk actions."""
    jobs: int
    """How many jobs fail so now: dead, or waiting for another attempt."""
    dead: int
    is_least: bool
    """Whether more jobs may fail so: only the newest failing jobs were examined."""
    first_seen: datetime
    last_seen: datetime
    attempts: int
    """How many attempts have failed so, ever."""
    trend: tuple[int, ...]
    """How many attempts failed so in each of equal spans of the period, the oldest first."""
    example: UUID | None
    """The event of the newest attempt; None: it is no longer kept."""
    message: str | None
    """The error message of the example."""
    title: Title | None = None
    """What the example says, in a few words. None: it is gone."""
    assigned_to: str | None = None
    """Who is to look after it."""
    changed_at: datetime | None = None
    """When its state was changed."""
    changed_by: str | None = None
    """Who changed it; None: it changed by itself, or never."""
    muted_until: datetime | None = None
    """When a muted one is open again; None: it is not muted, or for ever, or by a number."""
    muted_to: int | None = None
    """The number of attempts at which a muted one is open again."""
    resolved_at: datetime | None = None
    """When it was resolved last."""
    resolved_in: str | None = None
    """The release that mends it; None: it was mended when it was resolved."""
    resolves_itself: bool = False
    """Whether it is resolved once none of its jobs fails or is to be repeated."""
    reopened_at: datetime | None = None
    """When it came back by itself; None: it did not, or somebody has reacted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailuresShown:
    """A list of groups."""

    groups: tuple[ListedFailure, ...]
    counts: Mapping[State, int]
    """How many of the groups of whom is asked for are in each state."""
    examined: int
    is_whole: bool
    """Whether all failing jobs were examined; otherwise the newest were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureDetails:
    """A group with all that is known of it."""

    failure: ListedFailure
    traceback: str | None
    """Of the example."""
    counts: tuple[int, ...]
    """How many attempts failed so in each span of the period."""
    fields: tuple[CommonField, ...]
    """What the bodies of its newest events have in common, and those of others have not."""
    releases: tuple[ReleaseOfFailure, ...]
    """The releases of the application that had it, the last one first."""
    notes: tuple[Note, ...]
    """The newest first."""
    events: tuple[ListedEvent, ...]
    """The newest that fail so now."""
    actions: tuple[Action, ...]
    """What operators did with it, the newest first."""


Sources = Mapping[str, Source]


def listed(
    connection: Connection, wanted: Wanted, *, sources: Sources, now: datetime, masked: bool
) -> FailuresShown:
    """Return the groups that are wanted: `records.LISTED` of those that were recorded, and all that
    fail now."""
    spans = window(wanted.range, now)
    failing = failing_now.groups(connection, now=now, period=spans.until - spans.since)
    by_key = {_key(group): group for group in failing.groups}
    recorded = records.newest(connection, wanted.states, assigned_to=wanted.assigned_to)
    known = records.of_keys(connection, by_key.keys() - recorded.keys())
    recorded |= {key: group for key, group in known.items() if _is_wanted(group, wanted)}
    counts = records.counts(connection, assigned_to=wanted.assigned_to)
    fresh = [group for key, group in by_key.items() if key not in recorded and key not in known]
    counts[State.OPEN] += len(fresh) if wanted.assigned_to is None else 0
    shown = [_fresh(group, failing) for group in fresh] if _takes_fresh(wanted) else []
    shown += _of_records(connection, list(recorded.values()), failing, spans)
    return FailuresShown(
        groups=_masked(_titled(connection, _sorted(shown, wanted.sort), sources), masked),
        counts=counts,
        examined=failing.examined,
        is_whole=failing.is_whole,
    )


def of_processor(
    connection: Connection, processor: str, spans: Window, *, now: datetime, masked: bool
) -> tuple[ListedFailure, ...]:
    """Return what fails of a processor now, the most jobs first, with trends over `spans`."""
    failing = failing_now.groups(connection, now=now, period=spans.until - spans.since)
    groups = {_key(group): group for group in failing.groups if group.processor == processor}
    known = records.of_keys(connection, groups.keys())
    shown = [_fresh(group, failing) for key, group in groups.items() if key not in known]
    shown += _of_records(connection, list(known.values()), failing, spans)
    return _masked(_sorted(shown, Sort.JOBS), masked)


def one(
    connection: Connection, number: int, *, sources: Sources, now: datetime, masked: bool
) -> ListedFailure:
    """Return a group. Raises NotFound."""
    group = records.one(connection, number)
    return _one(connection, group, sources, window(Range.DAY, now), now, masked=masked)


def details(
    connection: Connection,
    number: int,
    period: Range,
    *,
    sources: Sources,
    now: datetime,
    masked: bool,
) -> FailureDetails:
    """Return a group with all that is known of it. Raises NotFound."""
    group = records.one(connection, number)
    spans = window(period, now)
    failure = _one(connection, group, sources, spans, now, masked=masked)
    attempt = records.newest_attempts(connection, [group]).get(group.id)
    traceback = attempt.traceback if attempt else None
    notes = records.notes(connection, number)
    actions = audit_log.about(connection, f"failure {number}", limit=_ACTIONS_SHOWN)
    counted = records.trends(
        connection, [number], since=spans.since, span=spans.span, spans=len(spans.begins)
    )
    return FailureDetails(
        failure=failure,
        traceback=masking.hide(traceback) if masked else traceback,
        counts=counted[number],
        fields=masking.fields(fields.read(connection, group.key), masked=masked),
        releases=tuple(records.releases(connection, number)),
        notes=tuple(masking.note(note, masked=masked) for note in notes),
        events=masking.events(_events(connection, group, sources), masked=masked),
        actions=tuple(masking.action(action, masked=masked) for action in actions),
    )


def _one(
    connection: Connection,
    group: FailureRecord,
    sources: Sources,
    spans: Window,
    now: datetime,
    *,
    masked: bool,
) -> ListedFailure:
    failing = failing_now.groups(connection, now=now, period=spans.until - spans.since)
    (shown,) = _of_records(connection, [group], failing, spans)
    return _masked(_titled(connection, [shown], sources), masked)[0]


def _events(
    connection: Connection, group: FailureRecord, sources: Sources
) -> tuple[ListedEvent, ...]:
    """Return the newest events that fail so, with their titles."""
    ids = failing_now.events(connection, *group.key, limit=EVENTS_SHOWN)
    if not ids:
        return ()
    found = events.events(connection, EventFilter(ids=tuple(ids)), limit=EVENTS_SHOWN)
    return titles.titled(connection, list(found), sources)


def _key(group: FailureGroup) -> Key:
    return Key(group.processor, group.error_type, group.place)


def _is_wanted(group: FailureRecord, wanted: Wanted) -> bool:
    return group.state in wanted.states and wanted.assigned_to in (None, group.assigned_to)


def _takes_fresh(wanted: Wanted) -> bool:
    return State.OPEN in wanted.states and wanted.assigned_to is None


def _fresh(group: FailureGroup, failing: Failures) -> ListedFailure:
    """Return what fails and is not recorded yet."""
    return ListedFailure(
        id=None,
        state=State.OPEN,
        processor=group.processor,
        error_type=group.error_type,
        place=group.place,
        raised_at=group.raised_at,
        query=_query(group),
        jobs=group.jobs,
        dead=group.dead,
        is_least=not failing.is_whole,
        first_seen=group.first_seen,
        last_seen=group.last_seen,
        attempts=group.jobs,
        trend=group.trend,
        example=group.example,
        message=group.message,
    )


def _of_records(
    connection: Connection,
    recorded: Sequence[FailureRecord],
    failing: Failures,
    spans: Window,
) -> list[ListedFailure]:
    """Return recorded groups with what fails of them now."""
    if not recorded:
        return []
    attempts = records.newest_attempts(connection, recorded)
    trends = records.trends(
        connection,
        [group.id for group in recorded],
        since=spans.since,
        span=(spans.until - spans.since) / TREND_SPANS,
        spans=TREND_SPANS,
    )
    by_key = {_key(group): group for group in failing.groups}
    listed = [
        _recorded(group, by_key.get(group.key), attempts.get(group.id), trends[group.id])
        for group in recorded
    ]
    return [replace(group, is_least=not failing.is_whole) for group in listed]


def _recorded(
    group: FailureRecord,
    failing: FailureGroup | None,
    attempt: NewestAttempt | None,
    trend: tuple[int, ...],
) -> ListedFailure:
    return ListedFailure(
        id=group.id,
        state=group.state,
        processor=group.processor,
        error_type=group.error_type,
        place=group.place,
        raised_at=attempt.raised_at if attempt else None,
        query=_query(group),
        jobs=failing.jobs if failing else 0,
        dead=failing.dead if failing else 0,
        is_least=False,
        first_seen=group.first_seen,
        last_seen=group.last_seen,
        attempts=group.attempts,
        trend=trend,
        example=attempt.event if attempt else None,
        message=attempt.message if attempt else None,
        assigned_to=group.assigned_to,
        changed_at=group.changed_at,
        changed_by=group.changed_by,
        muted_until=group.muted_until,
        muted_to=group.muted_to,
        resolved_at=group.resolved_at,
        resolved_in=group.resolved_in,
        resolves_itself=group.resolves_itself,
        reopened_at=group.reopened_at,
    )


def _query(group: FailureRecord | FailureGroup) -> str:
    return search_for(processor=group.processor, error_type=group.error_type, raised_at=group.place)


def _sorted(groups: Iterable[ListedFailure], sort: Sort) -> list[ListedFailure]:
    by_age = sorted(groups, key=lambda group: group.last_seen, reverse=True)
    return sorted(by_age, key=lambda group: getattr(group, sort), reverse=True)


def _titled(
    connection: Connection, groups: Sequence[ListedFailure], sources: Sources
) -> list[ListedFailure]:
    examples = [group.example for group in groups if group.example is not None]
    made = titles.read(connection, examples, sources)
    return [
        replace(group, title=None if group.example is None else made.get(group.example))
        for group in groups
    ]


def _masked(groups: Iterable[ListedFailure], masked: bool) -> tuple[ListedFailure, ...]:
    """Return groups as somebody may see them. Masked ones keep no message."""
    if not masked:
        return tuple(groups)
    return tuple(
        replace(
            group,
            message=masking.hide(group.message),
            title=masking.title(group.title, masked=True),
        )
        for group in groups
    )
