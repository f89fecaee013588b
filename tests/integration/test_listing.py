"""Lists of events: each filter, and all of them together, against a selection in plain Python."""

import itertools
from collections.abc import Callable, Iterator
from uuid import UUID

import pytest
from sqlalchemy import Engine

from ingest.store import listing, stats
from ingest.store.listing import ListedEvent
from ingest.store.selection import EVENT_STATES, Selection
from tests.support.deliver import body, deliver, order
from tests.support.rows import execute, one, rows

STATES = ("pending", "retrying", "succeeded", "dead", "running")


@pytest.fixture
def stored(engine: Engine, database_url: str) -> list[UUID]:
    """Sixty events of three types in every state there is, some delivered twice, oldest first."""
    bodies = [
        body(kind, {"order_id": number, "note": "urgent" if number % 7 == 0 else "later"})
        for number, kind in enumerate(["order.created", "order.lost", "contact.made"] * 20)
    ]
    ids = deliver(database_url, bodies)
    execute(
        engine,
        "INSERT INTO events SELECT delivery, source, event_id, type, fingerprint, received_at"
        " FROM unadmitted",
    )
    execute(engine, "DELETE FROM unadmitted")
    for number, event in enumerate(ids):
        if number % 6 != 5:
            _give_job(engine, event, STATES[number % 5], "p")
        if number % 4 == 0 and number % 6 != 5:
            _give_job(engine, event, "succeeded", "q")
    execute(
        engine,
        "INSERT INTO duplicates SELECT gen_random_uuid(), id, received_at, false FROM events"
        " WHERE id = ANY(:ids)",
        ids=ids[::10],
    )
    execute(engine, "DELETE FROM unhandled WHERE event IN (SELECT event FROM jobs)")
    return ids


def _give_job(engine: Engine, event: UUID, state: str, processor: str) -> None:
    waits, runs, ended = state in ("pending", "retrying"), state == "running", state in STATES[2:4]
    execute(
        engine,
        "INSERT INTO jobs (event, processor, queue, state, trigger, attempt, failures,"
        " max_attempts, next_attempt_at, lease_until, finished_at) VALUES (:event, :processor,"
        " 'events', :state, 'delivery', 1, 0, 3, CASE WHEN :waits THEN now() END,"
        " CASE WHEN :runs THEN now() END, CASE WHEN :ended THEN now() END)",
        event=event,
        state=state,
        processor=processor,
        waits=waits,
        runs=runs,
        ended=ended,
    )


def _listed(engine: Engine, selection: Selection, limit: int = 100) -> list[ListedEvent]:
    with engine.connect() as connection:
        return list(listing.events(connection, selection, limit=limit))


def _matches(selection: Selection) -> Callable[[ListedEvent], bool]:
    """The selection in plain Python, of what an unfiltered list says of an event."""

    def matches(event: ListedEvent) -> bool:
        number = int(event.event_id.rpartition(":")[2]) if ":" in event.event_id else -1
        patterns = [each.rstrip("*") for each in selection.types]
        return (
            (not patterns or any(event.type.startswith(each) for each in patterns))
            and selection.state in (None, event.state)
            and (selection.search is None or number % 7 == 0)
        )

    return matches


def _selections() -> Iterator[Selection]:
    for types, state, search in itertools.product(
        ((), ("order.created",), ("order.*",), ("order.*", "contact.made"), ("none.*",)),
        (None, *EVENT_STATES),
        (None, "urgent"),
    ):
        yield Selection(types=types, state=state, search=search)


def test_every_filter_lists_what_it_says_newest_first(engine: Engine, stored: list[UUID]) -> None:
    # `order.lost` and `contact.made` are named by their content: give every event a number.
    execute(
        engine,
        "UPDATE events SET event_id = type || ':' || numbered.number FROM"
        " (SELECT id, row_number() OVER (ORDER BY id) - 1 AS number FROM events) AS numbered"
        " WHERE numbered.id = events.id",
    )
    everything = _listed(engine, Selection())
    assert [event.id for event in everything] == stored[::-1]
    assert [event.deliveries for event in everything[::-1]] == ([2] + [1] * 9) * 6
    for selection in _selections():
        expected = [event for event in everything if _matches(selection)(event)]
        assert _listed(engine, selection) == expected, selection
        assert _listed(engine, selection, limit=2) == expected[:2], selection


def test_what_a_search_names_exactly_comes_first(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = deliver(database_url, [order(77), *(order(n, note="like 77") for n in range(10))])
    execute(
        engine,
        "INSERT INTO events SELECT delivery, source, event_id, type, fingerprint, received_at"
        " FROM unadmitted",
    )
    monkeypatch.setattr(listing, "_SLICE", 3)  # read on in several statements
    for text in ("77", "order.created:77"):
        found = [event.id for event in _listed(engine, Selection(search=text))]
        assert found[0] == ids[0]
        assert found[1:] == ([*ids[:0:-1]] if text == "77" else [])


def test_counts_are_those_of_a_full_count_also_when_rows_go(
    engine: Engine, stored: list[UUID]
) -> None:
    _check_counts(engine)
    execute(engine, "DELETE FROM duplicates WHERE event = :id", id=stored[0])
    execute(engine, "DELETE FROM jobs WHERE processor = 'q'")
    _check_counts(engine)


def _check_counts(engine: Engine) -> None:
    with engine.connect() as connection:
        found = stats.read(connection)
    states = {
        row["state"]: row["number"]
        for row in rows(engine, "SELECT state, count(*) AS number FROM jobs GROUP BY state")
    }
    assert {state: getattr(found.jobs, state) for state in states} == states
    assert found.events.total == one(engine, "SELECT count(*) FROM events")
    assert found.events.unhandled == one(engine, "SELECT count(*) FROM unhandled")
    assert found.deliveries.duplicates == one(engine, "SELECT count(*) FROM duplicates")
