"""Walking through the events of a selection in the order of their ids, a slice a statement.

Where an index leads to few events (the states that few are in, types, ids), a slice is the next so
many of those, each with the rest of the conditions. Elsewhere it is a range of ids that holds the
next so many events, whose jobs and bodies are read as they lie: 10,000 bodies in 14 ms, where one
by one they take 50. No statement leaves the planner a choice: of ranges of ids it expects one row
or a two-hundredth of all, and joins accordingly.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, RowMapping

from ingest.ids import first_id
from ingest.store.schema import STATES
from ingest.store.search.body_conditions import BodyTest
from ingest.store.search.distinct import TYPES
from ingest.store.search.filters import (
    DISCARDED,
    EVENT_STATES,
    UNHANDLED,
    EventFilter,
    body_tests,
    job_of_operation,
    opened_about,
    state_of_event,
    where,
)
from ingest.store.search.id_range import Span
from ingest.store.search.sealed import passing
from ingest.store.sql import statement

FIRST_SLICE = 250
_LARGEST_SLICE = 100_000
_LARGEST_OF_FEW = 5_000
_SLICE_S = 0.015
"""What a slice should take; the next one's size follows from what the last one took."""
_FEW = 5_000
"""Waiting jobs up to here are read and sorted, in 10 ms, or in 100 from the disk; more of them are
soon met anyway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """What one statement found."""

    rows: Sequence[RowMapping]
    reached: UUID | None
    """The last event that was read; None: there are no further ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """How to come by the events of a selection."""

    ids: str | None
    """SQL for the next `:size` ids of a span; None: by ranges."""
    rest: EventFilter
    """What is still to be asked of each event."""
    parameters: Mapping[str, Any]


def walk(
    connection: Connection,
    selection: EventFilter,
    span: Span,
    *,
    select: str,
    wanted: int,
    types_of: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[Slice]:
    """Slice after slice of what a selection has in a span, until nothing is left.

    Args:
        connection: in whose transaction to read.
        selection: which events.
        span: where, and in which direction.
        select: SQL that makes rows of `hits`, which has the columns of `events`.
        wanted: the most hits of a slice. A slice that has as many may have had more: what comes
            after the last one is then to be read from there.
        types_of: the types that a processor works on, where they are known: instead of looking for
            its jobs everywhere, only events of these types are looked at.
    """
    span = _clipped(span, selection)
    if not selection.about:  # what it is about is looked for within these times
        selection = replace(selection, since=None, until=None)
    way = _choose(connection, selection, span.order, types_of or {})
    largest = _LARGEST_OF_FEW if way.ids else _LARGEST_SLICE
    size = min(wanted, largest) if way.rest.is_everything else FIRST_SLICE
    read = _read_range if way.ids is None else _read_ids
    while True:
        began = time.perf_counter()
        part = read(connection, way, span, size=size, wanted=wanted, select=select)
        pace = _SLICE_S / max(time.perf_counter() - began, 1e-6)
        yield part
        if part.reached is None:
            return
        span = span.past(part.reached)
        size = max(FIRST_SLICE, min(int(size * min(pace, 4)), largest))


def _clipped(span: Span, selection: EventFilter) -> Span:
    low = span.low if selection.since is None else max(span.low, first_id(selection.since))
    high = span.high if selection.until is None else min(span.high, first_id(selection.until))
    return replace(span, low=low, high=high)


def _choose(
    connection: Connection,
    selection: EventFilter,
    order: str,
    types_of: Mapping[str, Sequence[str]],
) -> _Way:
    if selection.names_events or selection.about:
        rest = replace(selection, ids=(), event_ids=(), about=(), since=None, until=None)
        named = EventFilter(
            ids=selection.ids,
            event_ids=selection.event_ids,
            about=selection.about,
            since=selection.since,
            until=selection.until,
        )
        way = _some(named, rest, order)
        opened = opened_about(connection, named)
        return replace(way, parameters={**way.parameters, **opened}) if opened else way
    if selection.is_of_operation:
        return _of_operation(selection, order)
    if "conflict" in selection.marks:
        return _Way(ids=_CONFLICTS.format(order=order), rest=selection, parameters={})
    told = selection.state == UNHANDLED
    lacks_one = told and selection.processor is not None
    if selection.state in _STATES and not lacks_one and _is_few(connection, selection.state):
        rest = replace(selection, state=None) if told else selection
        return _Way(ids=_STATES[selection.state].format(order=order), rest=rest, parameters={})
    if _is_of_unfinished(selection) and _is_few(connection, "pending"):
        return _Way(ids=_UNFINISHED.format(order=order), rest=selection, parameters={})
    if selection.is_of_failures and _is_few(connection, "retrying"):
        return _Way(ids=_FAILING.format(order=order), rest=selection, parameters={})
    if selection.is_of_repeated:
        return _Way(ids=_REPEATED.format(order=order), rest=selection, parameters={})
    types = selection.types
    if selection.processor is not None and not told:
        types = types or tuple(types_of.get(selection.processor, ()))
    if types:
        rest = replace(selection, types=())
        parameters = where(EventFilter(types=types)).parameters
        return _Way(ids=_BY_TYPE.format(order=order), rest=rest, parameters=parameters)
    if selection.is_everything:
        return _some(selection, selection, order)
    return _Way(ids=None, rest=selection, parameters={})


def _of_operation(selection: EventFilter, order: str) -> _Way:
    """Return the way by the jobs of an operation, or by what it took back."""
    if selection.taken_back is not None:
        return _Way(
            ids=_TAKEN_BACK.format(order=order),
            rest=replace(selection, taken_back=None),
            parameters={"taken_back": selection.taken_back},
        )
    states = [selection.state] if selection.state in STATES else STATES
    if selection.state == DISCARDED:
        states = ["dead"]
    of_state = " UNION ALL ".join(
        f"({_REPLAYED.format(state=state, job=job_of_operation(selection), order=order)})"
        for state in states
    )
    # A state that is excluded is one of the operation's jobs, too.
    rest = selection if selection.excluded else replace(selection, replay=None, state=None)
    return _Way(
        ids=f"SELECT DISTINCT event FROM ({of_state}) AS replayed"
        f" ORDER BY event {order} LIMIT :size",
        rest=rest,
        parameters={"replay": selection.replay},
    )


def _some(named: EventFilter, rest: EventFilter, order: str) -> _Way:
    condition = where(named)
    ids = f"""SELECT events.id FROM ingest.events WHERE {condition.sql} AND {_within("events.id")}
        ORDER BY events.id {order} LIMIT :size"""
    return _Way(ids=ids, rest=rest, parameters=condition.parameters)


def _is_of_unfinished(selection: EventFilter) -> bool:
    """Return whether all but what succeeded is meant, which is few."""
    all_but = EventFilter(state="succeeded") in selection.excluded
    return all_but and selection.state is None and selection.processor is None


def _is_few(connection: Connection, state: str) -> bool:
    if state not in ("pending", "retrying"):
        return True
    return bool(connection.execute(_COUNT_WAITING, {"most": _FEW}).scalar_one() <= _FEW)


def _read_ids(
    connection: Connection, way: _Way, span: Span, *, size: int, wanted: int, select: str
) -> Slice:
    condition = where(way.rest)
    conditions = [*condition.conditions, *_of_jobs(way.rest)]
    query = f"""
        WITH RECURSIVE {TYPES}, walked (id) AS MATERIALIZED ({way.ids}), hits AS (
            SELECT events.* FROM ingest.events {_summary(way.rest)}
            WHERE {" AND ".join([_among("SELECT id FROM walked"), *conditions])}
            ORDER BY events.id {span.order} LIMIT :wanted
        )
        SELECT (SELECT count(*) FROM walked) AS walked,
               (SELECT id FROM walked ORDER BY id {span.opposite} LIMIT 1) AS edge, shown.*
        FROM (SELECT) AS always LEFT JOIN LATERAL ({select}) AS shown ON true
    """
    parameters = {**way.parameters, **condition.parameters, **_bounds(span, way.rest, wanted)}
    sealed = f"""WITH RECURSIVE {TYPES}, walked (id) AS MATERIALIZED ({way.ids})
        SELECT sealed.* FROM walked CROSS JOIN LATERAL (
            SELECT {_SEALED} AND id = walked.id LIMIT 1
        ) AS sealed"""
    parameters |= {"size": size}
    parameters |= passing(connection, list(body_tests(way.rest)), sealed, parameters)
    rows = connection.execute(statement(query), parameters).mappings().all()
    is_last = rows[0]["walked"] < size
    return Slice(rows=rows, reached=None if is_last else rows[0]["edge"])


def _read_range(
    connection: Connection, way: _Way, span: Span, *, size: int, wanted: int, select: str
) -> Slice:
    bounds = {"low": span.low, "high": span.high, "skip": size - 1}
    edge = connection.execute(_EDGES[span.newer], bounds).scalar_one_or_none()
    conditions, values = _of_a_range(way.rest)
    query = f"""
        WITH hits AS (
            SELECT events.* FROM ingest.events {_summary(way.rest)}
            WHERE {" AND ".join([_within("events.id"), *conditions])}
            ORDER BY events.id {span.order} LIMIT :wanted
        )
        {select}
    """
    parameters = values | _bounds(span.upto(edge), way.rest, wanted)
    sealed = f"SELECT {_SEALED} AND {_within('id')}"
    parameters |= passing(connection, list(body_tests(way.rest)), sealed, parameters)
    return Slice(
        rows=connection.execute(statement(query), parameters).mappings().all(), reached=edge
    )


_SEALED = "id, body_key, body FROM ingest.deliveries WHERE body_key IS NOT NULL"


def _of_a_range(rest: EventFilter) -> tuple[list[str], dict[str, Any]]:
    """Return the conditions, those that most events fail as a list of the ids that do not."""
    tests = list(body_tests(rest))
    condition = where(rest, without_bodies=True)
    values = condition.parameters
    if tests:
        values = {name: value for test in tests for name, value in test.values.items()} | values
        return [_among(_bodies(tests)), *condition.conditions, *_of_jobs(rest)], values
    if rest.processor is not None and rest.state != UNHANDLED:
        jobs = f"SELECT event FROM ingest.jobs WHERE processor = :processor AND {_within('event')}"
        return [_among(jobs), *condition.conditions, *_of_jobs(rest)], values
    return [*condition.conditions, *_of_jobs(rest)], values


def _among(ids: str) -> str:
    return f"events.id = ANY(ARRAY({ids}))"


def _bodies(tests: Sequence[BodyTest]) -> str:
    """Return the ids of a range that pass all tests, by their row or by their body. There is no
    join, because few events pass any test in either table; what only excludes, most of them do."""
    of_rows = ", ".join(f"{test.row} AS test_{n}" for n, test in enumerate(tests))
    of_bodies = ", ".join(f"{test.body} AS test_{n}" for n, test in enumerate(tests))
    met = [f"test_{n}" for n in range(len(tests))]
    any_met = f"WHERE {' OR '.join(met)}" if not all(test.excludes for test in tests) else ""
    passed = [
        f"{'NOT ' if test.excludes else ''}coalesce(bool_or({name}), false)"
        for name, test in zip(met, tests, strict=True)
    ]
    return f"""
        SELECT id FROM (
            SELECT id, {of_rows} FROM ingest.events WHERE {_within("id")}
            UNION ALL SELECT id, {of_bodies} FROM ingest.deliveries WHERE {_within("id")}
        ) AS tested
        {any_met}
        GROUP BY id HAVING {" AND ".join(passed)}
    """


def _bounds(span: Span, rest: EventFilter, wanted: int) -> dict[str, Any]:
    return {"low": span.low, "high": span.high, "processor": rest.processor, "wanted": wanted}


def _within(column: str) -> str:
    return f"{column} >= :low AND {column} < :high"


def _summary(rest: EventFilter) -> str:
    if rest.state is None or rest.replay is not None:
        return ""
    return f"CROSS JOIN LATERAL ({state_of_event(rest)}) AS summary"


def _of_jobs(rest: EventFilter) -> list[str]:
    """Return the conditions that speak of jobs, each event's looked up."""
    if rest.replay is not None:
        return []  # `where` says it: some job of the operation
    if rest.state is not None:
        assert rest.state in EVENT_STATES  # put into the statement
        return [f"summary.state = '{rest.state}'"]
    if rest.processor is not None:
        job = "SELECT true FROM ingest.jobs WHERE event = events.id AND processor = :processor"
        return [f"coalesce(({job}), false)"]
    return []


def _events_of(jobs: str, condition: str) -> str:
    return f"""SELECT DISTINCT event FROM {jobs}
        WHERE {condition} AND {_within("event")} ORDER BY event {{order}} LIMIT :size"""


# Without the order the planner may read all jobs for these, as if they lay among the others.
_WAITING = f"""(SELECT event, state FROM ingest.jobs WHERE due_at IS NOT NULL
              ORDER BY queue, due_at LIMIT {_FEW}) AS waiting"""
_RUNNING = f"""(SELECT event, state FROM ingest.jobs WHERE lease_until IS NOT NULL
              ORDER BY lease_until LIMIT {_FEW}) AS running"""
# States that few events are in, each by the index that knows them.
_STATES = {
    "pending": _events_of(_WAITING, "state = 'pending'"),
    "retrying": _events_of(_WAITING, "state = 'retrying'"),
    "running": _events_of(_RUNNING, "state = 'running'"),
    "dead": _events_of("ingest.jobs", "state = 'dead' AND discarded_at IS NULL"),
    DISCARDED: _events_of("ingest.jobs", "discarded_at IS NOT NULL"),
    UNHANDLED: f"""SELECT event FROM ingest.unhandled WHERE {_within("event")}
        ORDER BY event {{order}} LIMIT :size""",
}
_ALL_RETRYING = _events_of("ingest.jobs", "due_at IS NOT NULL AND state = 'retrying'")
_FAILING = f"""SELECT DISTINCT event FROM (
            ({_STATES["dead"]}) UNION ALL ({_ALL_RETRYING})
        ) AS failing ORDER BY event {{order}} LIMIT :size"""
# Of an operation's jobs, the next in each state.
_REPLAYED = f"""SELECT DISTINCT event FROM ingest.jobs
        WHERE state = '{{state}}' AND {{job}} AND {_within("event")}
        ORDER BY event {{order}} LIMIT :size"""
_TAKEN_BACK = f"""SELECT DISTINCT event FROM ingest.taken_back
        WHERE replay = :taken_back AND {_within("event")} ORDER BY event {{order}} LIMIT :size"""
_UNFINISHED = f"""SELECT DISTINCT event FROM (
            {" UNION ALL ".join(f"({ids})" for ids in _STATES.values())}
        ) AS unfinished ORDER BY event {{order}} LIMIT :size"""
_REPEATED = _events_of("ingest.duplicates", "true")
_CONFLICTS = _events_of("ingest.duplicates", "conflict")
# One type each time; naming it in the order keeps the planner from walking through all events.
_BY_TYPE = f"""SELECT page.id FROM known CROSS JOIN LATERAL (
            SELECT events.id FROM ingest.events
            WHERE events.type = known.type AND {_within("events.id")}
            ORDER BY events.type {{order}}, events.id {{order}} LIMIT :size
        ) AS page
        WHERE known.type LIKE ANY(CAST(:types AS text[]))
        ORDER BY page.id {{order}} LIMIT :size"""
_EDGES = {
    newer: statement(
        f"""
        SELECT id FROM ingest.events WHERE {_within("id")}
        ORDER BY id {"ASC" if newer else "DESC"} OFFSET :skip LIMIT 1
        """
    )
    for newer in (False, True)
}
_COUNT_WAITING = statement(
    """
    SELECT count(*) FROM (
        SELECT FROM ingest.jobs WHERE due_at IS NOT NULL ORDER BY queue, due_at LIMIT :most + 1
    ) AS waiting
    """
)
