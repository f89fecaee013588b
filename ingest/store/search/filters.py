"""Which events somebody means: one filter for the lists, the counts and the replays."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from ingest.errors import NotFound
from ingest.ids import first_id, last_element_id, received_at
from ingest.sources.base import join_event_id
from ingest.store.reports.failures import ERROR_TYPE, RAISED_AT
from ingest.store.schema import STATES
from ingest.store.search.body_conditions import BodyTest, Condition, contains, escape, has_field
from ingest.store.search.distinct import SOURCES, TYPES
from ingest.store.search.of_operation import replayed, taken_back
from ingest.store.search.related import Times, concerns, first_beyond, opened_mentions
from ingest.store.sql import statement

UNHANDLED = "unhandled"
DISCARDED = "discarded"
EVENT_STATES = (*STATES, UNHANDLED, DISCARDED)

# The state of an event is that of its jobs, the one that most needs a person first.
_BY_URGENCY = {
    "dead": "state = 'dead' AND discarded_at IS NULL",
    "retrying": "state = 'retrying'",
    "running": "state = 'running'",
    "pending": "state = 'pending'",
    DISCARDED: "discarded_at IS NOT NULL",
    "succeeded": "state = 'succeeded'",
}
STATE_OF_EVENT = f"""
    SELECT CASE
        {" ".join(f"WHEN bool_or({those}) THEN '{state}'" for state, those in _BY_URGENCY.items())}
        ELSE '{UNHANDLED}'
    END AS state
    FROM ingest.jobs WHERE event = events.id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Conditions that all must hold; what is None or empty does not count."""

    ids: tuple[UUID, ...] = ()
    """Events, by their id or by that of any of their deliveries."""
    event_ids: tuple[str, ...] = ()
    """Ids at the sender; together with `ids`, any of them."""
    types: tuple[str, ...] = ()
    """Event types, any of them; `*` stands for anything."""
    source: str | None = None
    processor: str | None = None
    state: str | None = None
    """Of the event, or of the event as far as `processor` goes."""
    error_type: str | None = None
    """Of the last attempt of a job that is dead or retrying (ingest.store.reports.failures)."""
    raised_at: str | None = None
    """Likewise: the last frame of its traceback; empty where it has none."""
    replay: int | None = None
    """The operation that requeued or discarded a job of the event last; `state` and `processor`
    then say which job."""
    taken_back: int | None = None
    """The operation that took back the event, or a job of it."""
    key_id: str | None = None
    """Which key signed its first delivery."""
    since: datetime | None = None
    until: datetime | None = None
    about: tuple[tuple[str, str], ...] = ()
    """What the event concerns (ingest.store.search.related): its kind and its value."""
    fields: tuple[tuple[str, str], ...] = ()
    """A dotted path into the raw body, and the value there; `*` at its end stands for anything."""
    search: str | tuple[str, ...] | None = None
    """A text in the event id or in the raw body; or several, all of them there."""
    leave_succeeded: bool = False
    """Of the jobs of named events: leave alone those that have succeeded."""
    among: tuple[UUID, ...] = ()
    """The events whose encrypted bodies hold what is meant (ingest.store.search.pinned); with it,
    no body is looked at."""

    @property
    def texts(self) -> tuple[str, ...]:
        """Return what is searched for."""
        texts = (self.search,) if isinstance(self.search, str) else self.search or ()
        return tuple(filter(None, texts))

    @property
    def is_everything(self) -> bool:
        """Return whether there is no condition."""
        return replace(self, search=self.texts or None) == EventFilter()

    @property
    def names_events(self) -> bool:
        """Return whether the events are named one by one."""
        return bool(self.ids or self.event_ids)

    @property
    def means_what_failed(self) -> bool:
        """Return whether the selection names no state. A replay or discard then takes what is
        dead."""
        is_named = self.names_events or self.taken_back is not None
        return not (self.state is not None or is_named or self.is_of_failures)

    @property
    def is_of_operation(self) -> bool:
        """Return whether events are meant that a replay or discard has acted on."""
        return self.replay is not None or self.taken_back is not None

    @property
    def is_of_failures(self) -> bool:
        """Return whether events are meant that have a job which fails."""
        return self.error_type is not None or self.raised_at is not None

    def for_replay(self, *, all_jobs: bool) -> "EventFilter":
        """Return what a replay takes: of named events the jobs that have not succeeded, unless a
        state is selected or `all_jobs` are wanted."""
        if all_jobs or self.state is not None or not self.names_events:
            return self
        return replace(self, leave_succeeded=True)

    def as_json(self) -> dict[str, Any]:
        """Return the conditions that are set, for `json.dumps(…, default=str)`.

        A release that does not know a condition refuses only selections that have it.
        """
        return {
            name: value for name, value in asdict(self).items() if value not in (None, (), False)
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "EventFilter":
        """Return the selection of `as_json`, with ids and times as text.

        Raises:
            TypeError: it has a condition that this version does not know.
        """
        values = {name: _hashable(value) for name, value in document.items()}
        for name in ("since", "until"):
            if values.get(name) is not None:
                values[name] = datetime.fromisoformat(values[name])
        ids = {
            name: tuple(UUID(text) for text in values.get(name, ())) for name in ("ids", "among")
        }
        return cls(**values | ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """SQL conditions on `events`, and the values that they name."""

    conditions: tuple[str, ...]
    parameters: dict[str, Any]

    @property
    def sql(self) -> str:
        """Return the conditions joined, `true` if there is none."""
        return " AND ".join(self.conditions) or "true"


def state_of_event(selection: EventFilter) -> str:
    """Return a query for the state of the row in `events`. If the selection names a processor, it
    is the state of that processor's job, and the query needs the parameter `processor`; likewise
    of the jobs of an operation, and the parameter `replay`. An event that is listed for one job's
    state has that state."""
    if selection.replay is not None and selection.state is not None:
        assert selection.state in EVENT_STATES  # put into the statement
        return f"SELECT CAST('{selection.state}' AS text) AS state"
    of_processor = "" if selection.processor is None else " AND processor = :processor"
    of_operation = "" if selection.replay is None else " AND replay = :replay"
    return STATE_OF_EVENT + of_processor + of_operation


def job_of_operation(selection: EventFilter) -> str:
    """Return the condition on the jobs of an operation that a selection means, with parameters."""
    conditions = ["replay = :replay"]
    if selection.state is not None:
        conditions.append(_BY_URGENCY.get(selection.state, "false"))
    if selection.processor is not None:
        conditions.append("processor = :processor")
    return " AND ".join(conditions)


def none_more_urgent(state: str) -> str:
    """Return a condition on a job in `state`: this is also the state of its event, apart from the
    jobs that the replay `:operation` has requeued."""
    states = list(_BY_URGENCY)
    more_urgent = [_BY_URGENCY[other] for other in states[: states.index(state)]]
    if not more_urgent:
        return "true"
    those = " OR ".join(f"({condition})" for condition in more_urgent)
    others = f"SELECT FROM ingest.jobs AS other WHERE other.event = jobs.event AND ({those})"
    return f"NOT EXISTS ({others} AND other.replay IS DISTINCT FROM :operation)"


def where(selection: EventFilter) -> Where:
    """Return the part of a selection that speaks of events: all but state and processor."""
    parts = [*_conditions(selection), *(test.condition for test in body_tests(selection))]
    return Where(
        conditions=tuple(condition for condition, _ in parts),
        parameters={name: value for _, values in parts for name, value in values.items()},
    )


def _conditions(selection: EventFilter) -> Iterator[Condition]:
    if selection.names_events:
        yield _named(selection)
    if selection.among:
        yield "events.id = ANY(CAST(:among AS uuid[]))", {"among": list(selection.among)}
    if selection.types:
        patterns = [escape(pattern).replace("*", "%") for pattern in selection.types]
        yield "events.type LIKE ANY(CAST(:types AS text[]))", {"types": patterns}
    if selection.source is not None:
        yield "events.source = :source", {"source": selection.source}
    if selection.since is not None:
        yield "events.id >= CAST(:since AS uuid)", {"since": first_id(selection.since)}
    if selection.until is not None:
        yield "events.id < CAST(:until AS uuid)", {"until": first_id(selection.until)}
    for n, (kind, value) in enumerate(() if selection.among else selection.about):
        yield concerns(kind, value, f"about_{n}", _times(selection))
    if selection.is_of_failures:
        yield _failing(selection)
    if selection.replay is not None:
        yield replayed(selection.replay, job_of_operation(selection), selection.processor)
    if selection.taken_back is not None:
        yield taken_back(selection.taken_back)


def narrow(connection: Connection, selection: EventFilter, *, at_most: int = 20_000) -> EventFilter:
    """Return a selection of the same events that names them by id, for callers that ask more than
    once. A condition that more than `at_most` events meet stays as it is."""
    if not selection.about or selection.names_events:
        return selection
    about = where(EventFilter(about=selection.about, since=selection.since, until=selection.until))
    query = statement(f"SELECT id FROM ingest.events WHERE {about.sql} LIMIT {at_most + 1}")
    parameters = about.parameters | opened_about(connection, selection)
    ids = tuple(connection.execute(query, parameters).scalars())
    if len(ids) > at_most:
        return selection
    return replace(selection, about=(), ids=ids or (_NO_EVENT,))


def opened_about(connection: Connection, selection: EventFilter) -> dict[str, list[UUID]]:
    """Return which encrypted bodies name what a selection is about, as values of the parameters of
    `where`."""
    return {
        name: ids
        for n, (kind, value) in enumerate(selection.about)
        for name, ids in opened_mentions(
            connection, kind, value, f"about_{n}", _times(selection)
        ).items()
    }


_NO_EVENT = UUID(int=0)


def looked_back_to(connection: Connection, selection: EventFilter) -> datetime | None:
    """Return how far back bodies were looked through for what a selection is about: of what was
    received before, events of sources without a read model are not found. None: everything was, or
    nothing had to be."""
    kinds = [kind for kind, _ in selection.about]
    event = first_beyond(connection, kinds, _times(selection))
    return None if event is None else received_at(event)


def _times(selection: EventFilter) -> Times:
    return Times(since=selection.since, until=selection.until)


def body_tests(selection: EventFilter) -> Iterator[BodyTest]:
    """Return the conditions that only deliveries can meet: their bodies, or the key."""
    if selection.key_id is not None:
        values = {"key_id": selection.key_id}
        yield BodyTest(row="false", clear="(deliveries.key_id = :key_id)", values=values)
    if selection.among:
        return
    for n, (path, value) in enumerate(selection.fields):
        beginning = value.removesuffix("*")
        yield has_field([path], beginning, f"field_{n}", is_beginning=beginning != value)
    for n, needle in enumerate(selection.texts):
        yield contains(needle, f"search_{n}")


def _named(selection: EventFilter) -> Condition:
    sql = f"""events.id = ANY(ARRAY(
        WITH RECURSIVE {SOURCES}
        SELECT unnest(CAST(:ids AS uuid[]))
        UNION ALL SELECT event FROM ingest.duplicates WHERE delivery = ANY(CAST(:ids AS uuid[]))
        UNION ALL SELECT events.id FROM origin JOIN ingest.events ON events.source = origin.slug
        WHERE events.event_id = ANY(CAST(:event_ids AS text[]))
    ))"""
    return sql, {"ids": list(selection.ids), "event_ids": list(selection.event_ids)}


def _failing(selection: EventFilter) -> Condition:
    """Return the condition that an event has a failing job, of the selection's processor and state
    if it names them."""
    by_expression = {
        ERROR_TYPE: selection.error_type,
        f"coalesce({RAISED_AT}, '')": selection.raised_at,
        "failing.processor": selection.processor,
        "failing.state": selection.state,
    }
    conditions_by_sql = {sql: value for sql, value in by_expression.items() if value is not None}
    conditions = "".join(f" AND {sql} = :failing_{n}" for n, sql in enumerate(conditions_by_sql))
    sql = f"""coalesce((
        SELECT true FROM ingest.jobs AS failing
        JOIN ingest.attempts AS a ON a.job = failing.id AND a.number = failing.attempt
        WHERE failing.event = events.id AND failing.state IN ('dead', 'retrying')
          AND failing.discarded_at IS NULL{conditions} LIMIT 1
    ), false)"""
    return sql, {f"failing_{n}": value for n, value in enumerate(conditions_by_sql.values())}


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def named_by(connection: Connection, name: str) -> tuple[UUID, ...]:
    """Return the events that `name` names exactly: by their id, by a delivery's (the first
    `_MOST_OF_DELIVERY` of its events), by their id at the sender, or by that of what they are about
    (`790` for `order.created:790`)."""
    try:
        return tuple(_by_id(connection, UUID(name))[:_MOST_OF_DELIVERY])
    except ValueError:
        pass
    known = connection.execute(_NAMES).all()
    candidates = [name, *(join_event_id(row.name, name) for row in known if row.what == "type")]
    sources = [row.name for row in known if row.what == "source"]
    return tuple(
        connection.execute(_NAMED, {"sources": sources, "candidates": candidates}).scalars()
    )


def _by_id(connection: Connection, identity: UUID) -> list[UUID]:
    bounds = {"id": identity, "last": last_element_id(identity)}
    return list(connection.execute(_BY_ID, bounds).scalars())


def resolve(connection: Connection, names: Sequence[str]) -> tuple[UUID, ...]:
    """Return the ids of the events that `names` mean: an event's id, its id at the sender, or that
    of a delivery, whose events they are.

    Raises:
        NotFound: one of them means nothing.
    """
    return tuple(event for name in names for event in _resolve(connection, name))


def _resolve(connection: Connection, name: str) -> list[UUID]:
    try:
        identity = UUID(name)
    except ValueError:
        events = list(connection.execute(_BY_EVENT_ID, {"event_id": name}).scalars())
    else:
        events = _by_id(connection, identity)
    if not events:
        raise NotFound(f"No event answers to {name}.", reason="not_found")
    return events


_NAMES = statement(
    f"""
    WITH RECURSIVE {TYPES}, {SOURCES}
    SELECT 'type' AS what, type AS name FROM known WHERE type IS NOT NULL
    UNION ALL
    SELECT 'source', slug FROM origin WHERE slug IS NOT NULL
    """
)
_NAMED = statement(
    """
    SELECT id FROM ingest.events
    WHERE source = ANY(CAST(:sources AS text[])) AND event_id = ANY(CAST(:candidates AS text[]))
    ORDER BY id DESC
    """
)
_MOST_OF_DELIVERY = 50
_BY_ID = statement(
    """
    WITH named AS (
        SELECT CAST(:id AS uuid) AS id
        UNION ALL
        SELECT id FROM ingest.deliveries WHERE id > :id AND id <= :last AND part_of = :id
    )
    SELECT events.id FROM ingest.events WHERE id = ANY(ARRAY(SELECT id FROM named))
    UNION
    SELECT event FROM ingest.duplicates WHERE delivery = ANY(ARRAY(SELECT id FROM named))
      AND (SELECT true FROM ingest.events WHERE id = duplicates.event LIMIT 1)
    ORDER BY id
    """
)
_BY_EVENT_ID = statement(
    f"""
    WITH RECURSIVE {SOURCES}
    SELECT events.id FROM origin JOIN ingest.events ON events.source = origin.slug
    WHERE events.event_id = :event_id
    """
)
