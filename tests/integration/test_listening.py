"""Forwarding to a developer's machine: each event once, however late it is admitted."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from ingest.destinations import listening
from ingest.destinations.listening import Listening
from ingest.store.search import recent_ids
from ingest.store.search.filters import EventFilter
from ingest.store.search.recent_ids import LATEST, OVERLAP
from tests.integration.test_tail import admit
from tests.support.deliver import deliver, order
from tests.support.work import explained

BEGAN = datetime(2025, 10, 9, 12, tzinfo=UTC)
BACKLOG = 3_000

Listen = Callable[[], Listening]


@pytest.fixture
def listen(engine: Engine) -> Listen:
    """Begin to listen to all events."""
    return lambda: Listening(engine, EventFilter(), {}, since=BEGAN, is_raw=False)


def after(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def told(listener: Listening, seconds: float) -> list[int]:
    """The orders that are told after so many seconds."""
    found = listener.new(after(seconds))
    return [int(each.event.event_id.removeprefix("order.created:")) for each in found]


def test_an_event_that_is_admitted_late_is_told_once(
    engine: Engine, database_url: str, listen: Listen
) -> None:
    listener = listen()
    late = deliver(database_url, [order(1), order(2)], now=after(1).timestamp())
    admit(engine, deliver(database_url, [order(3)], now=after(2).timestamp()))
    assert told(listener, 5) == [3]
    assert told(listener, 2 * OVERLAP.total_seconds()) == []
    admit(engine, late[:1])
    assert told(listener, 1_000) == [1]
    admit(engine, late[1:])
    assert [told(listener, 1_001), told(listener, 1_002), told(listener, 1_003)] == [[2], [], []]


def test_what_is_admitted_while_others_are_read_is_told_afterwards(
    engine: Engine, database_url: str, listen: Listen
) -> None:
    listener = listen()
    late = deliver(database_url, [order(1)], now=after(1).timestamp())
    admit(engine, deliver(database_url, [order(2)], now=after(2).timestamp()))
    reading = listener.new(after(100))
    assert next(reading).event.event_id == "order.created:2"
    admit(engine, late)
    assert list(reading) == []
    assert told(listener, 101) == [1]


def test_what_is_never_admitted_is_not_waited_for_longer_than_an_hour(
    engine: Engine, database_url: str, listen: Listen
) -> None:
    listener = listen()
    stuck = deliver(database_url, [order(1)], now=after(1).timestamp())
    assert told(listener, LATEST.total_seconds() + 10) == []
    admit(engine, stuck)
    assert told(listener, LATEST.total_seconds() + 11) == []


def test_with_more_events_than_are_remembered_none_is_told_twice(
    engine: Engine, database_url: str, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_REMEMBERED", 2)
    listener = listen()
    deliver(database_url, [order(0)], now=after(1).timestamp())
    many = [order(number) for number in range(1, 7)]
    admit(engine, deliver(database_url, many, now=after(2).timestamp()))
    assert told(listener, 5) == [1, 2, 3, 4, 5, 6]
    assert told(listener, 6) == []


def test_a_receiver_whose_clock_is_ahead_hides_no_event_of_another(
    engine: Engine, database_url: str, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_REMEMBERED", 2)
    listener = listen()
    admit(engine, deliver(database_url, [order(9)], now=after(7_200).timestamp()))
    for number in range(1, 4):
        admit(engine, deliver(database_url, [order(number)], now=after(number).timestamp()))
        assert number in told(listener, number)


def test_where_to_read_on_is_found_at_once_whatever_waits(
    engine: Engine, database_url: str
) -> None:
    deliver(database_url, [order(n) for n in range(BACKLOG)], now=after(1).timestamp())
    with engine.connect() as connection:
        start, work = explained(connection, lambda db: recent_ids.next_start(db, after(60)))
    assert start == after(1)
    assert work.rows <= 2
    assert work.blocks <= 10
