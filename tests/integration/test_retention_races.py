"""Admission beside removal, forced at each point where the two can meet: no event comes twice.

An admission is stopped between its snapshot and its insert by an event in the same batch that
somebody else is inserting, whose name comes first in the order in which events are inserted.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime
from uuid import UUID

import pytest
from sqlalchemy import Engine

from ingest.store.pipeline.admission import Admitted
from ingest.store.retention import events, progress, turns
from ingest.store.retention.ages import Ages
from ingest.store.retention.events import Age
from ingest.store.retention.progress import Position
from tests.support.retention import admit, days, deliver_at, end, inserting, is_ready, remove
from tests.support.rows import one, rows
from tests.support.waiting import until

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
AGE = Age(before=NOW - days(30), remember_since=date.min)


@pytest.fixture
def event(engine: Engine) -> UUID:
    """A finished event `z` of two months ago."""
    is_ready(engine)
    made = deliver_at(engine, "z", NOW - days(60))
    admit(engine, [made])
    end(engine, [made], NOW - days(60))
    return made


def step(engine: Engine, since: Position) -> events.Step:
    """A step of the removal: what is remembered goes, and the next is remembered."""
    with engine.begin() as connection:
        return events.step(connection, AGE, since=since, limit=10)


def position(engine: Engine) -> Position:
    with engine.begin() as connection:
        return progress.position(connection, "events")


def writers(engine: Engine) -> frozenset[str]:
    with engine.begin() as connection:
        return events.writers(connection)


def is_waiting(engine: Engine) -> bool:
    return bool(one(engine, "SELECT count(*) FROM pg_locks WHERE NOT granted"))


@contextmanager
def stopped(engine: Engine) -> Iterator[tuple[Future[Admitted], Callable[[], None]]]:
    """A late duplicate's admission that has its snapshot and has not inserted; it goes on after, or
    by the function that is yielded too."""
    batch = [deliver_at(engine, name, NOW) for name in ("a", "z")]
    with ThreadPoolExecutor(1) as pool, inserting(engine, "a") as other:
        admission = pool.submit(admit, engine, batch)
        until(lambda: is_waiting(engine), what="the admission waits")
        yield admission, other.rollback


def came_once(engine: Engine, event: UUID) -> bool:
    """Whether the late delivery of `z` has become a duplicate, and `z` no second event."""
    again = rows(engine, "SELECT id FROM events WHERE event_id = 'z' AND id <> :id", id=event)
    repeated = rows(engine, "SELECT event FROM duplicates")
    unadmitted = one(engine, "SELECT count(*) FROM unadmitted")
    return not again and repeated == [{"event": event}] and not unadmitted


def test_a_snapshot_from_before_the_event_is_remembered(engine: Engine, event: UUID) -> None:
    """The removal waits until that admission has found the event in the ledger."""
    with stopped(engine) as (admission, go_on):
        step(engine, Position())
        assert writers(engine)
        done: list[bool] = []
        with ThreadPoolExecutor(1) as pool:
            removal = pool.submit(_pass_until, engine, done)
            until(lambda: len(done) > 3 or removal.done(), what="the removal has looked again")
            assert one(engine, "SELECT count(*) FROM events WHERE event_id = 'z'") == 1
            go_on()
            assert admission.result(300).duplicates == 1
            assert removal.result(300)["events"] == 1
    assert came_once(engine, event)


def _pass_until(engine: Engine, looked: list[bool]) -> dict[str, int]:
    return remove(engine, Ages(events=days(30)), NOW, pause=lambda _seconds: looked.append(True))


def test_without_the_wait_it_would_come_twice(engine: Engine, event: UUID) -> None:
    """So the wait is what keeps the promise, and these tests would tell."""
    with stopped(engine) as (admission, _):
        step(engine, Position())
        step(engine, position(engine))
    assert admission.result(300).duplicates == 0
    assert not came_once(engine, event)


def test_a_snapshot_from_between_the_two(engine: Engine, event: UUID) -> None:
    """It sees the event in the memory, so nobody waits for it."""
    step(engine, Position())
    assert not writers(engine)
    with stopped(engine) as (admission, _):
        assert step(engine, position(engine)).events == 1
    assert admission.result(300).duplicates == 1
    assert came_once(engine, event)


def test_an_admission_while_the_removal_is_not_committed(engine: Engine, event: UUID) -> None:
    step(engine, Position())
    since = position(engine)
    late = deliver_at(engine, "z", NOW)
    with engine.begin() as connection:
        assert events.step(connection, AGE, since=since, limit=10).events == 1
        assert admit(engine, [late]).duplicates == 1  # and it has not waited
    assert came_once(engine, event)


@pytest.mark.parametrize("steps_before", [0, 1, 2])
def test_a_whole_admission_before_between_or_after(
    engine: Engine, event: UUID, steps_before: int
) -> None:
    for number in range(2):
        if number == steps_before:
            admit(engine, [deliver_at(engine, "z", NOW)])
        step(engine, position(engine))
    if steps_before == 2:
        admit(engine, [deliver_at(engine, "z", NOW)])
    assert one(engine, "SELECT count(*) FROM events") == 0
    assert came_once(engine, event)


def test_two_relays_do_not_remove_at_once(engine: Engine, event: UUID) -> None:
    step(engine, Position())
    since = position(engine)
    with engine.begin() as first:
        assert turns.take(first)
        assert step(engine, since).has_ended
    assert step(engine, since).events == 1
    assert step(engine, since).events == 0  # it stood there before


def test_a_replay_in_a_batch_holds_the_removal_off(engine: Engine, event: UUID) -> None:
    step(engine, Position())
    with engine.begin() as batch:
        turns.hold_off_removal(batch)
        assert step(engine, position(engine)).has_ended
    assert step(engine, position(engine)).events == 1
