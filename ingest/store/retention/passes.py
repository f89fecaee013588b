"""A pass over everything that is old enough to go, in steps of bounded size."""

import time
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Engine

from ingest.store import past_events
from ingest.store.retention import events, progress, records, turns
from ingest.store.retention.ages import Ages
from ingest.store.retention.events import Age, Step

BATCH = 500
"""Rows a step. Removing as many events takes some 30 ms."""
_PATIENCE_S = 5.0
"""A step that would wait longer for the admissions before it is left to a later pass."""
_POLL_S = 0.005


class Removed(NamedTuple):
    """Rows of a kind that a step has removed."""

    kind: str
    rows: int


def run(
    engine: Engine,
    ages: Ages,
    *,
    clock: Callable[[], datetime],
    pause: Callable[[float], object] = time.sleep,
    batch: int = BATCH,
) -> Iterator[Removed]:
    """Remove everything that is old enough; yield what each step has removed, once it is committed.

    Whoever iterates sets the pace, and may stop after any step: the next pass goes on there.

    Args:
        engine: of the relay's role, or an operator's.
        ages: how long each kind is kept.
        clock: returns the time.
        pause: waits for some seconds, for transactions that are being committed.
        batch: rows a step, at most.

    Raises:
        SQLAlchemyError: PostgreSQL is away or refuses; nothing of the step was removed.
    """
    now = clock()
    if ages.events is not None:
        age = Age(before=now - ages.events, remember_since=_since(now, ages.past_events))
        yield from _events(engine, age, pause, batch)
        yield from _duplicates(engine, age.before, batch)
    if ages.past_events is not None:
        yield from _past_events(engine, now - ages.past_events, batch)
    others = {
        progress.REFUSALS: ages.refusals,
        progress.ACTIVITY: ages.activity,
        progress.AUDIT: ages.audit,
        progress.FAILURES: ages.failures,
    }
    for kind, span in others.items():
        if span is not None:
            yield from _others(engine, kind, now - span, batch)


def _since(now: datetime, age: timedelta | None) -> date:
    return date.min if age is None else (now - age).date()


def _events(
    engine: Engine, age: Age, pause: Callable[[float], object], batch: int
) -> Iterator[Removed]:
    while True:
        done = _step(engine, age, pause, batch)
        yield Removed(progress.EVENTS, done.events)
        yield Removed(progress.JOBS, done.jobs)
        yield Removed(progress.ATTEMPTS, done.attempts)
        if done.has_ended:
            return


def _step(engine: Engine, age: Age, pause: Callable[[float], object], batch: int) -> Step:
    with engine.begin() as connection:
        since = progress.position(connection, progress.EVENTS)
    waited_s = 0.0
    with engine.begin() as connection:
        writers = events.writers(connection)
    while writers:
        if waited_s >= _PATIENCE_S:
            return Step(has_ended=True)
        pause(_POLL_S)
        waited_s += _POLL_S
        with engine.begin() as connection:
            writers &= events.writers(connection)
    with engine.begin() as connection:
        return events.step(connection, age, since=since, limit=batch)


def _duplicates(engine: Engine, before: datetime, batch: int) -> Iterator[Removed]:
    while True:
        with engine.begin() as connection:
            removed = records.remove_duplicates(connection, before=before, limit=batch)
        if removed is None:
            return
        yield Removed(progress.DUPLICATES, removed)


def _past_events(engine: Engine, before: datetime, batch: int) -> Iterator[Removed]:
    while True:
        with engine.begin() as connection:
            if not turns.take(connection):
                return
            forgotten = past_events.forget(connection, before=before.date(), limit=batch)
            progress.record(
                connection, progress.PAST_EVENTS, removed=forgotten, has_ended=not forgotten
            )
        if not forgotten:
            return
        yield Removed(progress.PAST_EVENTS, forgotten)


def _others(engine: Engine, kind: str, before: datetime, batch: int) -> Iterator[Removed]:
    while True:
        with engine.begin() as connection:
            removed = records.remove(connection, kind, before=before, limit=batch)
        if removed is None:
            return
        yield Removed(kind, removed)
