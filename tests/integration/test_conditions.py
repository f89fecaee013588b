"""What a search excludes and compares: the same events in a list and in a replay."""

import itertools
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine

from ingest.query import parse
from ingest.store.bulk import replay
from ingest.store.search.body_conditions import BodyTest
from ingest.store.search.comparisons import COMPARE, compares
from ingest.store.search.filters import EventFilter
from ingest.store.sql import statement
from tests.support.deliver import body, deliver
from tests.support.rows import execute
from tests.support.states import give_job, listed

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
ORDERS: list[dict[str, Any]] = [
    {"total": 12.5},
    {"total": "12.50", "vip": True},
    {"total": 1000},
    {"total": "1e9"},
    {"total": None},
    {"vip": True, "at": "2026-01-31T15:00:00+03:00"},
    {"total": -3, "at": "2026-01-30"},
    {"total": "2000", "at": 1769860801},
]


def found(text: str) -> EventFilter:
    query = parse(text, now=NOW)
    assert query.problems == ()
    return query.selection


@pytest.fixture
def orders(engine: Engine, database_url: str) -> list[UUID]:
    """An event of each order, each with a dead job; the fourth came twice, the fifth otherwise."""
    raw = [
        body("order.created" if n % 2 else "order.lost", {"order_id": n, **order})
        for n, order in enumerate(ORDERS)
    ]
    ids = deliver(database_url, raw)
    execute(
        engine,
        "INSERT INTO events SELECT delivery, source, event_id, type, fingerprint, received_at"
        " FROM unadmitted",
    )
    execute(engine, "DELETE FROM unadmitted")
    for event in ids:
        give_job(engine, event, "dead", "p")
    execute(engine, "DELETE FROM unhandled")
    execute(
        engine,
        "INSERT INTO duplicates SELECT gen_random_uuid(), event, now(), event = :other"
        " FROM unnest(CAST(:events AS uuid[])) AS event",
        events=[ids[3], ids[3], ids[4]],
        other=ids[4],
    )
    return ids


CASES: list[tuple[str, set[int]]] = [
    ("data.total:>12.5", {2, 7}),
    ("data.total:>=12.5", {0, 1, 2, 7}),
    ("data.total:<1000", {0, 1, 6}),
    ("data.total:<=1000 data.total:>0", {0, 1, 2}),
    # An event that lacks the field, or has another kind of value, is not excluded by it.
    ("-data.total:>12.5", {0, 1, 3, 4, 5, 6}),
    ("-data.vip:true", {0, 2, 3, 4, 6, 7}),
    ("-vip", {0, 2, 3, 4, 6, 7}),
    ("-order.lost", {1, 3, 5, 7}),
    ("-vip data.total:>0", {0, 2, 7}),
    ("data.at:>=2026-01-31T12:00:00Z", {5, 7}),
    ("data.at:>2026-01-31T12:00:00Z", {7}),
    ("data.at:<2026-01-31", {6}),
    ("-type:order.created", {0, 2, 4, 6}),
    ("-type:order.created -data.total:<0", {0, 2, 4}),
    ("-state:dead", set()),
    ("-state:succeeded state:dead", set(range(8))),
    ("-source:awalchat", set()),
    ("-processor:p", set()),
    ("is:duplicate", {3, 4}),
    ("is:conflict", {4}),
    ("is:duplicate -is:conflict", {3}),
    ("deliveries:>2", {3}),
    ("deliveries:1 type:order.lost", {0, 2, 6}),
    ("deliveries:<=2", {0, 1, 2, 4, 5, 6, 7}),
    ("-deliveries:>1 -vip", {0, 2, 6, 7}),
]


def test_a_list_and_a_replay_mean_the_same(engine: Engine, orders: list[UUID]) -> None:
    for text, expected in CASES:
        selection = found(text)
        met = {event.id for event in listed(engine, selection)}
        assert met == {orders[n] for n in expected}, text
        with engine.connect() as connection:
            for action in (replay.REPLAY, replay.DISCARD):
                planned = replay.count(connection, selection, action=action)
                assert planned.jobs == len(expected), text


def test_what_was_erased_is_not_excluded_by_its_body(engine: Engine, orders: list[UUID]) -> None:
    execute(engine, "UPDATE deliveries SET body = NULL WHERE id = :id", id=orders[1])
    assert orders[1] in {event.id for event in listed(engine, found("-data.vip:true"))}
    assert orders[1] not in {event.id for event in listed(engine, found("data.vip:true"))}


VALUES: list[Any] = [
    *(
        0,
        -0.0,
        12.5,
        1e3,
        10**30,
        -1,
        True,
        False,
        None,
        [],
        {},
        "",
        " 1",
        "1 ",
        "+1",
        "-1.50",
        "007",
    ),
    *("2026-01-31", "2026-02-30", "2026-01-31T11:59:60Z", "2026-01-31t12:00:00.123456789z"),
    *("2026-01-31T15:00:00.000001+03:00", "2026-01-31T12:00", "2026-01-31T24:00:00Z", "0000-01-01"),
    *("9999-12-31T23:59:59-15:00", "2026-13-01", "1769860800", "1769860800123", 1769860800, "x\ny"),
    *(1769860800.5, "٣", "1e5", "2026-01-31\n"),
]


ASKED = ("0", "12.5", "-1", "2026-01-31T12:00:00Z", "2026-03-02T00:00:00Z")


def test_what_is_encrypted_is_compared_as_what_is_in_clear(engine: Engine) -> None:
    bodies = [json.dumps({"data": {"x": value}}).encode() for value in VALUES]
    bodies += [b'{"data":{"x":1e5}}', b'{"data":{"\\u0078":12.50}}', b"{}", b"no json"]
    for asked, sign in itertools.product(ASKED, COMPARE):
        test = compares("data.x", sign, asked, "x")
        in_sql = _in_clear(engine, test, bodies)
        assert in_sql == [test.passes(raw) for raw in bodies], (sign, asked)
        assert any(in_sql)


def _in_clear(engine: Engine, test: BodyTest, bodies: list[bytes]) -> list[bool]:
    query = statement(
        f"SELECT {test.clear} FROM unnest(CAST(:bodies AS bytea[])) WITH ORDINALITY"
        " AS stored (body, n) ORDER BY n"
    )
    with engine.connect() as connection:
        return list(connection.execute(query, {**test.values, "bodies": bodies}).scalars())
