"""Lists of events: each filter, and all of them together, against a selection in plain Python."""

from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine

from ingest.store.search import events, scan
from ingest.store.search.events import ListedEvent
from ingest.store.search.filters import EventFilter
from ingest.store.search.named import named_by, resolve
from tests.support.deliver import deliver, order
from tests.support.rows import execute
from tests.support.states import listed, selections, store


@pytest.fixture
def stored(engine: Engine, database_url: str) -> list[UUID]:
    """Sixty events of three types in every state there is, oldest first."""
    return store(engine, database_url)


def _matches(selection: EventFilter) -> Callable[[ListedEvent], bool]:
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


def test_every_filter_lists_what_it_says_newest_first(engine: Engine, stored: list[UUID]) -> None:
    # `order.lost` and `contact.made` are named by their content: give every event a number.
    execute(
        engine,
        "UPDATE events SET event_id = type || ':' || numbered.number FROM"
        " (SELECT id, row_number() OVER (ORDER BY id) - 1 AS number FROM events) AS numbered"
        " WHERE numbered.id = events.id",
    )
    everything = listed(engine, EventFilter())
    assert [event.id for event in everything] == stored[::-1]
    assert [event.deliveries for event in everything[::-1]] == ([2] + [1] * 9) * 6
    for selection in selections():
        expected = [event for event in everything if _matches(selection)(event)]
        assert listed(engine, selection) == expected, selection
        assert listed(engine, selection, limit=2) == expected[:2], selection


def test_what_a_search_names_exactly_comes_first(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = deliver(database_url, [order(77), *(order(n, note="like 77") for n in range(10))])
    execute(
        engine,
        "INSERT INTO events SELECT delivery, source, event_id, type, fingerprint, received_at"
        " FROM unadmitted",
    )
    monkeypatch.setattr(scan, "FIRST_SLICE", 3)  # read on in several statements
    for text in ("77", "order.created:77"):
        found = [event.id for event in listed(engine, EventFilter(search=text))]
        assert found[0] == ids[0]
        assert found[1:] == ([*ids[:0:-1]] if text == "77" else [])


def test_an_id_at_the_sender_that_is_a_uuid_is_named_exactly_too(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GitHub's ids of deliveries are UUIDs, and their events `push:UUID`."""
    given, plain, whole = str(uuid4()), uuid4().hex, str(uuid4())
    ids = deliver(database_url, [order(n, note="-") for n in range(10)])
    execute(
        engine,
        "INSERT INTO events SELECT delivery, source, event_id, type, fingerprint, received_at"
        " FROM unadmitted",
    )
    names = {ids[0]: f"order.created:{given}", ids[1]: f"order.created:{plain}", ids[2]: whole}
    for event, name in names.items():
        execute(engine, "UPDATE events SET event_id = :name WHERE id = :id", name=name, id=event)
    for text, event in ((given, ids[0]), (plain, ids[1]), (whole, ids[2]), (str(ids[3]), ids[3])):
        with engine.connect() as connection:
            assert named_by(connection, text) == (event,)
    with engine.connect() as connection:
        assert resolve(connection, [whole]) == (ids[2],)
        assert named_by(connection, str(uuid4())) == named_by(connection, str(UUID(int=0))) == ()
        # Of a page whose time is up at once, the names are all that is found so far back.
        monkeypatch.setattr(scan, "FIRST_SLICE", 3)
        page = events.page(connection, EventFilter(search=given), limit=5, budget_s=0)
    assert [event.id for event in page.named] == [ids[0]]


def test_a_key_lists_the_events_whose_first_delivery_it_signed(
    engine: Engine, stored: list[UUID]
) -> None:
    by_other_key = stored[7:20:6]
    execute(
        engine, "UPDATE deliveries SET key_id = 'feedbeef' WHERE id = ANY(:ids)", ids=by_other_key
    )
    assert [event.id for event in listed(engine, EventFilter(key_id="feedbeef"))] == by_other_key[
        ::-1
    ]
    one_type = EventFilter(key_id="feedbeef", types=("order.*",), search="order")
    assert {event.id for event in listed(engine, one_type)} <= set(by_other_key)
    assert listed(engine, EventFilter(key_id="unknown")) == []
