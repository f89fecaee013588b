"""Which events somebody means: one filter for the lists, the counts and the replays."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from ingest.ids import first_id, received_at
from ingest.store.reports.failures import ERROR_TYPE, PLACE, RAISED_AT
from ingest.store.schema import STATES
from ingest.store.search.body_conditions import BodyTest, Condition, contains, escape, has_field
from ingest.store.search.comparisons import COMPARE, compares
from ingest.store.search.distinct import SOURCES
from ingest.store.search.named import IDS_AND_ELEMENTS, ids_and_elements
from ingest.store.search.of_operation import replayed, taken_back
from ingest.store.search.related import Times, concerns, first_beyond, opened_mentions
from ingest.store.sql import statement

UNHANDLED = "unhandled"
DISCARDED = "discarded"
EVENT_STATES = (*STATES, UNHANDLED, DISCARDED)
_REPEATS = "SELECT true FROM ingest.duplicates WHERE event = events.id"
MARKS = {"duplicate": _REPEATS, "conflict": f"{_REPEATS} AND conflict"}
"""SQL for what an event may be besides its state: delivered again; with another content."""
SIGNS = (*COMPARE, "=")
"""How a number of deliveries is compared."""

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
    """Events, by their id, or by that of a delivery, whose events they are."""
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
    comparisons: tuple[tuple[str, str, str], ...] = ()
    """A dotted path into the raw body, a sign (ingest.store.search.comparisons), and the number or
    the time that the value there is compared with."""
    marks: tuple[str, ...] = ()
    """Names in `MARKS`, all of them."""
    deliveries: tuple[tuple[str, int], ...] = ()
    """A sign, and how often the event was delivered."""
    search: str | tuple[str, ...] | None = None
    """A text in the event id or in the raw body; or several, all of them there."""
    excluded: tuple["EventFilter", ...] = ()
    """Selections of one condition each: an event is in none of them. So an event that lacks a field
    is not excluded by its value."""
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

    @property
    def is_of_repeated(self) -> bool:
        """Return whether only events are meant that were delivered more than once."""
        asked = [COMPARE[sign](1, number) for sign, number in self.deliveries if sign != "="]
        exact = [number == 1 for sign, number in self.deliveries if sign == "="]
        return bool(self.marks) or not all((*asked, *exact))

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
        excluded = [selection.as_json() for selection in self.excluded]
        values = asdict(replace(self, excluded=())) | {"excluded": excluded}
        return {name: value for name, value in values.items() if value not in (None, (), [], False)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "EventFilter":
        """Return the selection of `as_json`, with ids and times as text.

        Raises:
            TypeError: it has a condition that this version does not know.
        """
        values = {name: _hashable(value) for name, value in document.items()}
        values["excluded"] = tuple(map(cls.from_json, values.get("excluded", ())))
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
    others = f"SELECT false FROM ingest.jobs AS other WHERE other.event = jobs.event AND ({those})"
    return f"coalesce(({others} AND other.replay IS DISTINCT FROM :operation LIMIT 1), true)"


def where(selection: EventFilter, *, without_bodies: bool = False) -> Where:
    """Return the part of a selection that speaks of events: all but state and processor, and
    `without_bodies` also but what `body_tests` tests."""
    tests = () if without_bodies else body_tests(selection)
    excluded = (
        condition
        for n, alone in enumerate(selection.excluded)
        for condition in _excluding(selection, alone, f"not_{n}_")
    )
    parts = [*_conditions(selection), *excluded, *(test.condition for test in tests)]
    return Where(
        conditions=tuple(condition for condition, _ in parts),
        parameters={name: value for _, values in parts for name, value in values.items()},
    )


def _conditions(selection: EventFilter, prefix: str = "") -> Iterator[Condition]:
    if selection.names_events:
        yield _named(selection)
    if selection.among:
        yield "events.id = ANY(CAST(:among AS uuid[]))", {"among": list(selection.among)}
    if selection.types:
        patterns = [escape(pattern).replace("*", "%") for pattern in selection.types]
        types = f"{prefix}types"
        yield f"events.type LIKE ANY(CAST(:{types} AS text[]))", {types: patterns}
    if selection.source is not None:
        yield f"events.source = :{prefix}source", {f"{prefix}source": selection.source}
    if selection.since is not None:
        yield "events.id >= CAST(:since AS uuid)", {"since": first_id(selection.since)}
    if selection.until is not None:
        yield "events.id < CAST(:until AS uuid)", {"until": first_id(selection.until)}
    for n, (kind, value) in enumerate(() if selection.among else selection.about):
        yield concerns(kind, value, f"about_{n}", _times(selection))
    for mark in selection.marks:
        yield f"coalesce(({MARKS[mark]} LIMIT 1), false)", {}
    for n, (sign, number) in enumerate(selection.deliveries):
        assert sign in SIGNS  # put into the statement
        name = f"{prefix}deliveries_{n}"
        repeats = "SELECT count(*) FROM ingest.duplicates WHERE event = events.id"
        yield f"1 + ({repeats}) {sign} :{name}", {name: number}
    if selection.is_of_failures:
        yield _failing(selection, prefix)
    if selection.replay is not None:
        yield replayed(selection.replay, job_of_operation(selection), selection.processor)
    if selection.taken_back is not None:
        yield taken_back(selection.taken_back)


def _excluding(selection: EventFilter, alone: EventFilter, prefix: str) -> Iterator[Condition]:
    """Return the condition that an event of `selection` is not one of `alone`, unless that is about
    what `body_tests` tests."""
    for condition, values in _conditions(alone, prefix):
        yield f"NOT ({condition})", values
    if alone.processor is not None:
        name = f"{prefix}processor"
        job = f"SELECT true FROM ingest.jobs WHERE event = events.id AND processor = :{name}"
        yield f"NOT coalesce(({job} LIMIT 1), false)", {name: alone.processor}
    if alone.state is not None:
        assert alone.state in EVENT_STATES  # put into the statement
        values = {} if selection.processor is None else {"processor": selection.processor}
        yield f"({state_of_event(selection)}) <> '{alone.state}'", values


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
    excluding = (
        replace(test, excludes=True)
        for n, alone in enumerate(selection.excluded)
        for test in _tests(alone, f"not_{n}_")
    )
    for test in (*_tests(selection), *excluding):
        if test.matches is None or not selection.among:
            yield test


def _tests(selection: EventFilter, prefix: str = "") -> Iterator[BodyTest]:
    if selection.key_id is not None:
        name = f"{prefix}key_id"
        values = {name: selection.key_id}
        yield BodyTest(row="false", clear=f"(deliveries.key_id = :{name})", values=values)
    for n, (path, value) in enumerate(selection.fields):
        beginning = value.removesuffix("*")
        is_beginning = beginning != value
        yield has_field([path], beginning, f"{prefix}field_{n}", is_beginning=is_beginning)
    for n, (path, sign, value) in enumerate(selection.comparisons):
        yield compares(path, sign, value, f"{prefix}comparison_{n}")
    for n, needle in enumerate(selection.texts):
        yield contains(needle, f"{prefix}search_{n}")


def _named(selection: EventFilter) -> Condition:
    sql = f"""events.id = ANY(ARRAY(
        WITH RECURSIVE {SOURCES}, named AS ({IDS_AND_ELEMENTS})
        SELECT id FROM named
        UNION ALL
        SELECT event FROM ingest.duplicates WHERE delivery = ANY(ARRAY(SELECT id FROM named))
        UNION ALL SELECT events.id FROM origin JOIN ingest.events ON events.source = origin.slug
        WHERE events.event_id = ANY(CAST(:event_ids AS text[]))
    ))"""
    return sql, {**ids_and_elements(selection.ids), "event_ids": list(selection.event_ids)}


def _failing(selection: EventFilter, prefix: str) -> Condition:
    """Return the condition that an event has a failing job, of the selection's processor and state
    if it names them."""
    name = f"{prefix}failing"
    values = {
        f"{name}_type": selection.error_type,
        f"{name}_place": selection.raised_at,
        f"{name}_processor": selection.processor,
        f"{name}_state": selection.state,
    }
    conditions_by_name = {
        f"{name}_type": f"{ERROR_TYPE} = :{name}_type",
        f"{name}_place": f"({PLACE} = :{name}_place OR {RAISED_AT} = :{name}_place)",
        f"{name}_processor": f"failing.processor = :{name}_processor",
        f"{name}_state": f"failing.state = :{name}_state",
    }
    asked = {name: value for name, value in values.items() if value is not None}
    conditions = "".join(f" AND {conditions_by_name[name]}" for name in asked)
    sql = f"""coalesce((
        SELECT true FROM ingest.jobs AS failing
        JOIN ingest.attempts AS a ON a.job = failing.id AND a.number = failing.attempt
        WHERE failing.event = events.id AND failing.state IN ('dead', 'retrying')
          AND failing.discarded_at IS NULL{conditions} LIMIT 1
    ), false)"""
    return sql, asked


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value
