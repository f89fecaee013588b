"""Titles of what is stored: of bodies that are gone, long, or encrypted; and what a list costs."""

import time
from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy import Engine

from ingest.encryption.keys import NO_KEYS, BodyKeys
from ingest.sources.base import Source
from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from ingest.store.search import events, titles
from ingest.store.search.events import ListedEvent
from ingest.store.search.filters import EventFilter
from tests.support.deliver import body, deliver, order
from tests.support.rows import execute
from tests.support.sources import awalchat

SOURCES: dict[str, Source] = {"awalchat": awalchat()}
KEYS = BodyKeys([bytes(range(32))])
ADMIT = (
    "INSERT INTO events SELECT delivery, source, event_id, type, fingerprint, received_at"
    " FROM unadmitted"
)
LONG = "x" * titles.WHOLE_BYTES


def shown(engine: Engine) -> dict[UUID, str]:
    """The titles of a list, by the events' ids."""
    with engine.connect() as connection:
        page = events.page(connection, EventFilter(), limit=50)
        listed = titles.titled(connection, page.events, SOURCES)
    return {event.id: str(event.title) for event in listed}


def test_a_list_says_what_happened_as_far_as_bodies_tell(engine: Engine, database_url: str) -> None:
    bodies = [order(1), order(2, note=LONG), order(3), body("shop.opened", {}), order(4)]
    ids = deliver(database_url, bodies)
    execute(engine, ADMIT)
    execute(engine, "UPDATE deliveries SET body = NULL WHERE id = :id", id=ids[2])
    execute(engine, "UPDATE deliveries SET body = '\\xff' WHERE id = :id", id=ids[4])
    told = ["Order 1 created", "Order 2 created", "order.created", "Shop opened", "order.created"]
    assert shown(engine) == dict(zip(ids, told, strict=True))


def test_an_encrypted_body_has_a_title_where_its_key_is(database_url: str, engine: Engine) -> None:
    ids = deliver(database_url, [order(1), order(2, note=LONG)], keys=KEYS)
    execute(engine, ADMIT)
    for keys, told in ((KEYS, "Order 1 created"), (NO_KEYS, "order.created")):
        keyed = create_engine(
            replace(parse(database_url), body_keys=keys), role=Role.OPERATOR, pool_size=1
        )
        assert shown(keyed) == {ids[0]: told, ids[1]: "order.created"}
        keyed.dispose()


@pytest.mark.parametrize("size", [8_000, 1_000_000])
def test_fifty_titles_cost_no_more_than_a_page_may(
    engine: Engine, database_url: str, size: int
) -> None:
    """It takes some 8 ms; the bound is a hundred times that."""
    deliver(database_url, [order(number, note="é, " * (size // 3)) for number in range(50)])
    execute(engine, ADMIT)
    with engine.connect() as connection:
        listed = events.page(connection, EventFilter(), limit=50).events
        titles.titled(connection, listed, SOURCES)
        began = time.process_time()
        titled: tuple[ListedEvent, ...] = titles.titled(connection, listed, SOURCES)
        took_s = time.process_time() - began
    assert str(titled[0].title) == "Order 49 created"
    assert took_s < 1
