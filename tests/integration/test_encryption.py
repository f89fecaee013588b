"""Encrypted bodies beside bodies in clear: everything that reads or writes them."""

import asyncio
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine

from ingest.encryption import rotation
from ingest.encryption.keys import NO_KEYS, BodyKeys, key_id
from ingest.errors import BodyKeyMissing, SettingsError, TooManyEvents
from ingest.ids import received_at
from ingest.store import partitions, startup_check
from ingest.store.address import parse
from ingest.store.bulk import reopening, replay
from ingest.store.encryption import gate
from ingest.store.encryption import rotation as statements
from ingest.store.engine import Role, UnfitDatabase, WriterConnection, create_engine
from ingest.store.pipeline.deliveries import erase_content
from ingest.store.reports import event_detail
from ingest.store.search import events, pinned
from ingest.store.search.filters import EventFilter
from tests.conftest import Servers
from tests.integration.conftest import Worker
from tests.integration.test_erasure import AWALCHAT, SARA, about_omar, about_sara
from tests.integration.test_health import needed_by, with_a_role
from tests.integration.test_writer import delivery, writing
from tests.support.deliver import body, deliver, order
from tests.support.erasing import begin, everything, finish
from tests.support.meta import body_of, change, text, whatsapp
from tests.support.rows import execute, one, rows
from tests.support.servers import as_role
from tests.support.states import listed
from workers import Event, outcome, processor

MakeWorker = Callable[..., Worker]

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
OLD_KEYS, KEYS = BodyKeys([OLD]), BodyKeys([NEW, OLD])
TEXT = b64encode(NEW).decode() + "," + b64encode(OLD).decode()
OLD_TEXT = b64encode(OLD).decode()


@pytest.fixture
def keyed(database_url: str) -> Iterator[Engine]:
    """What a process with both keys reads by."""
    engine = with_keys(database_url, KEYS)
    yield engine
    engine.dispose()


def with_keys(database_url: str, keys: BodyKeys) -> Engine:
    return create_engine(
        replace(parse(database_url), body_keys=keys), role=Role.OPERATOR, pool_size=3
    )


def deliver_mixed(database_url: str, bodies: list[bytes]) -> list[UUID]:
    """Store bodies in clear, under the old key and under the new one, by turns."""
    keys = (NO_KEYS, OLD_KEYS, KEYS)
    return [
        deliver(database_url, [raw], keys=keys[position % 3])[0]
        for position, raw in enumerate(bodies)
    ]


def bring_all(engine: Engine, keys: BodyKeys, wanted: str | None) -> rotation.Progress:
    *_, last = rotation.bring_all(engine, keys, wanted=wanted)
    return last


def keys_in_use(engine: Engine) -> set[str | None]:
    return {row["body_key"] for row in rows(engine, "SELECT DISTINCT body_key FROM deliveries")}


@pytest.fixture
def seen() -> list[Event]:
    """What a processor of orders was given."""
    given: list[Event] = []

    @processor("order.created", name="p")
    def look(event: Event, db: Connection) -> None:
        given.append(event)

    return given


def test_a_receiver_with_keys_stores_no_body_in_clear(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    element = delivery(2, body=b"an element of it")
    whole = delivery(1, body=b"the body of one", name=None, elements=(element,))
    alone = delivery(3, body=b"the body of another")
    keyed = replace(parse(database_url), body_keys=KEYS)
    monkeypatch.setattr("tests.integration.test_writer.parse", lambda _url: keyed)

    async def append() -> None:
        async with writing(database_url) as writer:
            await asyncio.gather(writer.append(whole), writer.append(alone))
            await writer.append(delivery(4, body=b"alone in its commit"))

    asyncio.run(append())
    stored = rows(engine, "SELECT id, body, body_key FROM deliveries ORDER BY id")
    assert len(stored) == 4
    assert {row["body_key"] for row in stored} == {KEYS.newest}
    opened = {row["id"]: KEYS.open(row["body"], row["id"], row["body_key"]) for row in stored}
    assert {whole.id: whole.body, element.id: element.body, alone.id: alone.body}.items() <= (
        opened.items()
    )
    assert not any(opened[row["id"]] in row["body"] for row in stored)
    assert gate_state(engine) == ([KEYS.newest], "0015")


def gate_state(engine: Engine) -> tuple[list[str], str]:
    with engine.connect() as connection:
        used = gate.used(connection)
    newest = "SELECT oldest_code FROM revisions WHERE revision = '0015'"
    return used, one(engine, newest)


def test_without_keys_the_statement_of_a_receiver_is_as_it_was(
    engine: Engine, database_url: str
) -> None:
    deliver(database_url, [order(1)])
    (row,) = rows(engine, "SELECT body, body_key FROM deliveries")
    assert row == {"body": order(1), "body_key": None}
    assert gate_state(engine) == ([], "0005")


def test_events_of_mixed_rows_reach_their_processor(
    engine: Engine, database_url: str, make_worker: MakeWorker, seen: list[Event]
) -> None:
    bodies = [order(number) for number in range(6)]
    make_worker(body_keys=TEXT).process(deliver_mixed(database_url, bodies))
    assert sorted(event.body for event in seen) == bodies
    assert keys_in_use(engine) == {None, *KEYS.ids}
    assert one(engine, "SELECT count(*) FROM jobs WHERE state = 'succeeded'") == 6


def test_without_the_key_an_event_waits_and_spends_nothing(
    engine: Engine,
    database_url: str,
    make_worker: MakeWorker,
    seen: list[Event],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outcome, "WAIT_FOR_KEY_S", 0.0)
    worker = make_worker(body_keys=OLD_TEXT, name="lacks:1")
    worker.process(deliver(database_url, [order(1), order(2)], keys=KEYS))
    worker.process(deliver(database_url, [order(3)], keys=OLD_KEYS))
    assert [event.data["order_id"] for event in seen] == [3]
    jobs = rows(engine, "SELECT id, state, failures FROM jobs WHERE state <> 'succeeded'")
    assert [(job["state"], job["failures"]) for job in jobs] == [("retrying", 0)] * 2
    for _ in range(10):  # more often than a job may fail
        worker.process(jobs=[job["id"] for job in jobs])
    (told,) = rows(engine, "SELECT DISTINCT outcome, error_type, error_message FROM attempts")
    assert (told["outcome"], told["error_type"]) == ("released", "BodyKeyMissing")
    assert KEYS.newest is not None
    assert KEYS.newest in told["error_message"]
    make_worker(body_keys=TEXT, name="has:1").process(jobs=[job["id"] for job in jobs])
    assert sorted(event.data["order_id"] for event in seen) == [1, 2, 3]
    assert one(engine, "SELECT count(*) FROM jobs WHERE state = 'succeeded'") == 3


def test_a_body_that_was_changed_or_moved_fails_as_what_cannot_be_read_does(
    engine: Engine, database_url: str, make_worker: MakeWorker, seen: list[Event]
) -> None:
    ids = deliver(database_url, [order(number) for number in range(4)], keys=KEYS)
    execute(
        engine,
        "UPDATE deliveries SET body = set_byte(body, 20, get_byte(body, 20) # 1) WHERE id = :id",
        id=ids[0],
    )
    execute(
        engine,
        "UPDATE deliveries SET body = other.body FROM deliveries AS other"
        " WHERE deliveries.id = :id AND other.id = :other",
        id=ids[1],
        other=ids[2],
    )
    make_worker(body_keys=TEXT, max_attempts=1).process(ids)
    assert [event.data["order_id"] for event in seen] == [2, 3]
    states = {row["event"]: row["state"] for row in rows(engine, "SELECT event, state FROM jobs")}
    assert [states[event] for event in ids] == ["dead", "dead", "succeeded", "succeeded"]
    failed = rows(engine, "SELECT error_type, outcome FROM attempts")
    assert failed == [{"error_type": "BodyTampered", "outcome": "failed"}] * 2


def test_a_duplicate_is_known_whatever_encrypts_it_and_a_conflict_is_shown(
    keyed: Engine, engine: Engine, database_url: str, make_worker: MakeWorker, seen: list[Event]
) -> None:
    worker = make_worker(body_keys=TEXT)
    (event,) = deliver(database_url, [order(1, total=1)])
    worker.process([event])
    worker.process(deliver_mixed(database_url, [order(1, total=1)] * 3))
    (other,) = deliver(database_url, [order(1, total=2)], keys=KEYS)
    worker.process([other])
    assert one(engine, "SELECT count(*) FROM events") == 1
    assert rows(engine, "SELECT delivery FROM duplicates WHERE conflict") == [{"delivery": other}]
    with keyed.connect() as connection:
        history = event_detail.of_event(connection, event)
    bodies = {one.id: one.body for one in history.deliveries}
    assert bodies[other] == order(1, total=2)
    assert list(bodies.values()).count(order(1, total=1)) == 4


def test_what_cannot_be_decrypted_is_shown_as_that(
    engine: Engine, database_url: str, make_worker: MakeWorker, seen: list[Event]
) -> None:
    (event,) = deliver(database_url, [order(1)], keys=KEYS)
    make_worker(body_keys=TEXT).process([event])
    with engine.connect() as connection:
        first = event_detail.of_event(connection, event).deliveries[0]
        whole = events.delivery(connection, event)
    for shown in (first, whole):
        assert shown.body is None
        assert "which this process has not been given" in (shown.unreadable or "")
    assert first.kept


SEARCHES = [
    EventFilter(search="سارة"),
    EventFilter(search="سارة", types=("order.created",)),
    EventFilter(search=("note", "5")),
    EventFilter(search="nothing like it"),
    EventFilter(fields=(("data.order_id", "3"),)),
    EventFilter(fields=(("data.total", "1250"),)),
    EventFilter(fields=(("data.total", "1250.00"), ("data.paid", "true"))),
    EventFilter(fields=(("data.items.0.sku", "A-*"),)),
    EventFilter(fields=(("data.items.-1.sku", "B/2"),)),
    EventFilter(fields=(("data.gone", "null"),)),
    EventFilter(fields=(("data.nul", "a\ufffdb"),)),
    EventFilter(fields=(("data.name", "سارة"),)),
    EventFilter(fields=(("data.total", "125*"),)),
    EventFilter(about=(("phone", "+966 51 234 5678"),)),
    EventFilter(about=(("order", "4"),)),
    EventFilter(key_id="0123abcd", search="B/2"),
    EventFilter(state="pending", search="سارة"),
    EventFilter(state="unhandled", fields=(("data.order_id", "4"),)),
    EventFilter(comparisons=(("data.total", ">", "12.5"),)),
    EventFilter(comparisons=(("data.order_id", ">=", "2"), ("data.order_id", "<", "4"))),
    EventFilter(excluded=(EventFilter(search="سارة"),)),
    EventFilter(excluded=(EventFilter(fields=(("data.order_id", "3"),)),), search="note"),
    EventFilter(excluded=(EventFilter(comparisons=(("data.total", "<=", "1000"),)),)),
    EventFilter(state="pending", excluded=(EventFilter(fields=(("data.order_id", "5"),)),)),
    EventFilter(
        types=("order.created",), excluded=(EventFilter(fields=(("data.order_id", "3"),)),)
    ),
]


KINDS = [
    *('{"x": "text"}', '{"x": ""}', '{"x": "[1, 2]"}', '{"x": "null"}', '{"x": null}', "{}"),
    *('{"x": 0}', '{"x": 12.50}', '{"x": 1e400000}', '{"x": true}', '{"x": false}'),
    *('{"x": [1, 2]}', '{"x": []}', '{"x": {"y": 1}}', '{"x": {}}', '{"x": {"y": null}}'),
    *('{"x": {"y": {"z": [{"x": "text"}]}}}', '{"x": [{"y": true}, null]}'),
]
"""What may be under a path."""
UNDER_PATHS = [
    ("data.x", "*", {0, 1, 2, 3, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17}),
    ("data.x", "", {1}),
    ("data.x", "null", {3}),
    ("data.x", "text", {0}),
    ("data.x", "12.5", {7}),
    ("data.x", "0*", {6}),
    ("data.x", "true", {9}),
    ("data.x", "f*", {10}),
    ("data.x", "[1, 2]", {2}),
    ("data.x", "[*", {2}),
    ("data.x", "[]", set()),
    ("data.x", "{}", set()),
    ("data.x", "{*", set()),
    ("data.x", '{"y": 1}', set()),
    ("data.x.y", "*", {13, 16}),
    ("data.x.y", "1", {13}),
    ("data.x.y.z", "*", {16}),
    ("data.x.y.z.0", "*", {16}),
    ("data.x.y.z.0.x", "t*", {16}),
    ("data.x.0", "*", {11, 17}),
    ("data.x.0.y", "true", {17}),
    ("data.x.1", "*", {11}),
    ("data", "*", {*range(len(KINDS))}),
]
"""Paths and values, and which of `KINDS` have them."""


def test_whatever_is_under_a_path_it_is_found_alike_in_clear_and_encrypted(
    engine: Engine, keyed: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    raws = [
        f'{{"event": "note.made", "data": {data}, "id": {number}}}'.encode()
        for number, data in enumerate(KINDS)
    ]
    ids = deliver(database_url, raws)
    make_worker(body_keys=TEXT).process(ids)

    def check(reader: Engine) -> None:
        for path, value, numbers in UNDER_PATHS:
            alone = EventFilter(fields=((path, value),))
            expected = {ids[number] for number in numbers}
            assert {event.id for event in listed(reader, alone)} == expected, alone
            others = {event.id for event in listed(reader, EventFilter(excluded=(alone,)))}
            assert others == {*ids} - expected, alone

    check(engine)
    encrypt_some(keyed, ids, key_id(NEW))
    assert keys_in_use(engine) == {key_id(NEW)}
    check(keyed)


def bodies_to_search() -> list[bytes]:
    return [
        raw
        for number in range(6)
        for raw in (
            body(
                "order.created",
                {
                    "order_id": number,
                    "total": 1250 if number % 2 else 12.5,
                    "paid": True,
                    "name": "سارة" if number < 4 else "عمر",
                    "items": [{"sku": f"A-{number}"}, {"sku": "B/2"}],
                    "gone": None,
                    "nul": "a\0b",
                },
            ).replace(b"1250,", b"1250.00,"),
            body("note.made", {"note": number, "text": "سارة" if number == 5 else "-"}),
            body(
                "message.received",
                {"message_id": f"m{number}", "from": f"96651234567{number + 3}", "type": "text"},
            ),
            f'{{"event":"note.plain","data":{{"name":"سارة","order_id":{number}}}}}'.encode(),
        )
    ]


def test_a_search_finds_the_same_in_clear_and_encrypted(
    engine: Engine, keyed: Engine, database_url: str, make_worker: MakeWorker, seen: list[Event]
) -> None:
    make_worker(body_keys=TEXT).process(deliver(database_url, bodies_to_search()))
    execute(
        engine,
        "UPDATE jobs SET state = 'pending', next_attempt_at = 'infinity', finished_at = NULL",
    )
    before = [[event.id for event in listed(engine, selection)] for selection in SEARCHES]
    assert sum(map(bool, before)) >= len(SEARCHES) - 2
    third = "SELECT id FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM deliveries) AS d"
    for place, wanted in ((1, key_id(OLD)), (2, key_id(NEW)), (0, key_id(NEW))):
        ids = [row["id"] for row in rows(engine, f"{third} WHERE n % 3 = :place", place=place)]
        encrypt_some(keyed, ids, wanted)
        for selection, expected in zip(SEARCHES, before, strict=True):
            found = [event.id for event in listed(keyed, selection)]
            assert found == expected, (place, selection)
    assert None not in keys_in_use(engine)
    lost = [[event.id for event in listed(engine, selection)] for selection in SEARCHES]
    assert lost[0] == []  # a process without the keys does not pretend
    assert not any(
        found for found, asked in zip(lost, SEARCHES, strict=True) if asked.excluded
    )  # nor that what it cannot read is not what was excluded


def encrypt_some(engine: Engine, ids: list[UUID], wanted: str) -> None:
    """Bring only some bodies to a key."""
    with engine.begin() as connection:
        page = statements.page_after(connection, UUID(int=0), wanted=wanted)
        meant = [stored for stored in page.bodies if stored.delivery in ids]
        opened = [KEYS.open(stored.stored, stored.delivery, stored.key) for stored in meant]
        sealed = [
            KEYS.seal(raw, stored.delivery, wanted)
            for raw, stored in zip(opened, meant, strict=True)
        ]
        assert statements.replace(connection, meant, sealed, wanted=wanted) == len(meant)


def test_a_page_of_a_search_says_how_far_it_has_read(keyed: Engine, database_url: str) -> None:
    ids = deliver(database_url, [order(number) for number in range(2_500)], keys=KEYS)
    with keyed.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO ingest.events SELECT delivery, source, event_id, type, fingerprint,"
            " received_at FROM ingest.unadmitted"
        )
        selection = EventFilter(fields=(("data.order_id", "3"),))
        first = events.page(connection, selection, limit=10, budget_s=0)
        assert first.events == ()
        assert first.reached is not None
        assert first.reached > received_at(ids[3])
        page, turns = first, 0
        while page.older is not None:
            page, turns = events.page(connection, selection, limit=10, before=page.older), turns + 1
            if page.events:
                break
    assert [event.id for event in page.events] == [ids[3]]


def test_a_person_is_found_and_erased_in_encrypted_bodies(
    engine: Engine, keyed: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    ids = deliver_mixed(database_url, [*about_sara(), *about_omar()])
    make_worker(body_keys=TEXT).process(ids)
    sources = {AWALCHAT.slug: AWALCHAT}
    number, counts = begin(keyed, phones=[SARA], sources=sources)
    assert counts.sources == {"awalchat": len(about_sara())}
    finish(keyed, number, sources)
    left = rows(engine, "SELECT id, body, body_key FROM deliveries WHERE body IS NOT NULL")
    assert sorted(KEYS.open(row["body"], row["id"], row["body_key"]) for row in left) == sorted(
        about_omar()
    )
    assert one(engine, "SELECT count(body_key) FROM deliveries WHERE body IS NULL") == 0
    assert SARA not in everything(engine)


def test_nobody_is_erased_where_a_body_cannot_be_read(engine: Engine, database_url: str) -> None:
    deliver(database_url, about_sara(), keys=KEYS)
    with pytest.raises(BodyKeyMissing):
        begin(engine, phones=[SARA], sources={AWALCHAT.slug: AWALCHAT})
    assert one(engine, "SELECT count(*) FROM erasures") == 0


def test_what_bodies_hold_selects_events_for_a_replay(
    engine: Engine, keyed: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", name="p", max_attempts=1)
    def fail(event: Event, db: Connection) -> None:
        raise ValueError("no")

    ids = deliver_mixed(database_url, [order(number, note=number % 2) for number in range(6)])
    unhandled = deliver(database_url, [body("note.made", {"note": 1})], keys=KEYS)
    make_worker(body_keys=TEXT).process([*ids, *unhandled])
    selection = EventFilter(fields=(("data.note", "1"),))
    with keyed.connect() as connection:
        meant = pinned.pinned(connection, selection)
        assert set(meant.among) == {*ids[1::2], *unhandled}
        counts = replay.count(connection, meant)
        assert (counts.jobs, counts.events) == (3, 1)
        with pytest.raises(TooManyEvents, match="Narrow it"):
            pinned.pinned(connection, selection, most=2)
        nothing = pinned.pinned(connection, EventFilter(fields=(("data.note", "7"),)))
        assert replay.count(connection, nothing).total == 0
    with engine.connect() as connection:
        assert pinned.pinned(connection, selection) == selection  # no keys, nothing encrypted
    *_, done = replay.run(engine, meant, requested_by="test", reason=None, rate=None)
    assert done.total == 4
    pending = rows(engine, "SELECT event FROM jobs WHERE state = 'pending' ORDER BY event")
    assert [row["event"] for row in pending] == ids[1::2]


def test_a_rejected_delivery_is_opened_again_and_its_elements_are_encrypted_as_it_is(
    engine: Engine, keyed: Engine, database_url: str
) -> None:
    source = whatsapp()
    raw = body_of(change(messages=[text(1)]), change(messages=[text(2)]))
    for keys in (OLD_KEYS, KEYS, NO_KEYS):
        (identity,) = deliver(database_url, [order(1)], keys=keys)
        execute(engine, "DELETE FROM unadmitted WHERE delivery = :id", id=identity)
        execute(
            engine,
            "UPDATE deliveries SET rejected = 'no', source = :slug, body = :raw WHERE id = :id",
            id=identity,
            slug=source.slug,
            raw=raw if keys.newest is None else keys.seal(raw, identity, keys.newest),
        )
        with keyed.begin() as connection:
            assert reopening.reopen(connection, {source.slug: source}, [identity]) == [identity]
        elements = rows(
            engine, "SELECT id, body, body_key FROM deliveries WHERE part_of = :id", id=identity
        )
        assert len(elements) == 2
        for row in elements:
            assert row["body_key"] == keys.newest
            assert b"wamid." in KEYS.open(row["body"], row["id"], row["body_key"])


def test_every_body_is_brought_to_the_newest_key_and_back(
    engine: Engine, keyed: Engine, database_url: str
) -> None:
    bodies = [order(number) for number in range(9)]
    ids = deliver_mixed(database_url, bodies)
    with engine.begin() as connection:
        erase_content(connection, ids[:1])
    assert bring_all(keyed, KEYS, KEYS.newest).written == 5
    assert bring_all(keyed, KEYS, KEYS.newest).written == 0
    stored = rows(engine, "SELECT id, body, body_key FROM deliveries ORDER BY id")
    assert stored[0]["body"] is stored[0]["body_key"] is None
    opened = [KEYS.open(row["body"], row["id"], row["body_key"]) for row in stored[1:]]
    assert opened == bodies[1:]
    assert rotation.count_all(keyed) == {KEYS.newest: 8, None: 0}
    assert bring_all(keyed, KEYS, None).written == 8
    assert [row["body"] for row in rows(engine, "SELECT body FROM deliveries ORDER BY id")] == [
        None,
        *bodies[1:],
    ]


def test_a_run_that_was_interrupted_goes_on(
    engine: Engine, keyed: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "_BYTES", 1)
    monkeypatch.setattr(statements, "_READ", statements.read_of(rows=3))
    deliver_mixed(database_url, [order(number) for number in range(12)])
    begun = rotation.bring_all(keyed, KEYS, wanted=KEYS.newest)
    next(begun)
    written = one(engine, "SELECT count(*) FROM deliveries WHERE body_key = :key", key=KEYS.newest)
    assert 4 < written < 12
    progress = bring_all(keyed, KEYS, KEYS.newest)
    assert progress.written == 12 - written
    assert progress.read == 12
    assert keys_in_use(engine) == {KEYS.newest}


def test_what_is_erased_dropped_or_changed_under_a_run_stays_so(
    engine: Engine, keyed: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = deliver(database_url, [order(number) for number in range(4)], keys=OLD_KEYS)
    real = statements.replace

    def others_first(connection: Connection, *given: Any, **more: Any) -> int:
        monkeypatch.setattr(statements, "replace", real)
        with engine.begin() as other:
            erase_content(other, ids[:1])
        encrypt_some(keyed, ids[1:2], key_id(NEW))
        execute(engine, "DELETE FROM deliveries WHERE id = :id", id=ids[2])
        return real(connection, *given, **more)

    monkeypatch.setattr(statements, "replace", others_first)
    assert bring_all(keyed, KEYS, KEYS.newest).written == 1
    left = rows(engine, "SELECT id, body, body_key FROM deliveries ORDER BY id")
    assert [row["id"] for row in left] == [ids[0], ids[1], ids[3]]
    assert left[0]["body"] is None
    assert [KEYS.open(row["body"], row["id"], row["body_key"]) for row in left[1:]] == [
        order(1),
        order(3),
    ]


def test_a_partition_is_dropped_while_a_run_stands_between_two_pages(
    engine: Engine, keyed: Engine, database_url: str
) -> None:
    ids = deliver(database_url, [order(1)])
    execute(engine, "DELETE FROM unadmitted")
    begun = rotation.bring_all(keyed, KEYS, wanted=KEYS.newest)
    next(begun)
    with engine.begin() as connection:
        assert partitions.drop(connection, received_at(ids[0]).date()) is None
    assert [progress.written for progress in begun] == [1]


def test_bodies_that_cannot_be_read_are_left_alone_and_told(
    engine: Engine, database_url: str
) -> None:
    deliver(database_url, [order(1)], keys=BodyKeys([b"l" * 32]))
    changed, _ = deliver(database_url, [order(2), order(3)], keys=OLD_KEYS)
    execute(engine, "UPDATE deliveries SET body = '' WHERE id = :id", id=changed)
    keyed = with_keys(database_url, KEYS)
    progress = bring_all(keyed, KEYS, KEYS.newest)
    assert progress.written == 1
    assert progress.missing == {key_id(b"l" * 32): 1}
    assert progress.tampered == [changed]
    with keyed.begin() as connection:
        gate.begin(connection)
        assert statements.forget_unused(connection, rotation.count_all(keyed)) == []
    keyed.dispose()


def test_a_key_is_forgotten_when_no_body_and_no_receiver_has_it(
    engine: Engine, keyed: Engine
) -> None:
    for keys in ("a", "b", "c"):
        execute(engine, "INSERT INTO body_keys (id) VALUES (:key)", key=keys)
    execute(
        engine,
        "INSERT INTO processes (id, kind, host, pid, version, started_at, seen_at, body_keys)"
        " VALUES ('r', 'receiver', 'h', 1, '1', now(), now(), '{b,c}')",
    )
    with keyed.begin() as connection:
        assert statements.forget_unused(connection, {"a": 3, "c": 0, None: 1}) == ["c"]
        assert sorted(gate.used(connection)) == ["a", "b"]


OLDER_WORKER = (
    "INSERT INTO processes (id, kind, host, pid, version, started_at, seen_at, remembers)"
    " VALUES ('older', 'worker', 'h', 1, '1', now(), now(), true)"
)


def begin_writing(database_url: str) -> None:
    async def run() -> None:
        database = replace(parse(database_url), body_keys=KEYS)
        async with await WriterConnection.open(database) as connection:
            await gate.begin_writing(connection)

    asyncio.run(run())


def test_nothing_is_encrypted_while_older_code_could_meet_it(
    engine: Engine, keyed: Engine, database_url: str
) -> None:
    execute(engine, OLDER_WORKER)
    with pytest.raises(UnfitDatabase, match="worker older is of an older release"):
        begin_writing(database_url)
    with pytest.raises(SettingsError, match="worker older is of an older release"):
        startup_check.check(replace(parse(database_url), body_keys=KEYS), writes_bodies=True)
    startup_check.check(parse(database_url), writes_bodies=True)
    assert gate_state(engine) == ([], "0005")
    execute(engine, "DELETE FROM processes")
    begin_writing(database_url)
    begin_writing(database_url)
    assert gate_state(engine) == ([KEYS.newest], "0015")


@with_a_role
def test_a_role_that_may_not_begin_says_so_and_may_encrypt_once_somebody_has(
    engine: Engine, keyed: Engine, database_url: str, servers: Servers
) -> None:
    with servers.role(used_in=database_url) as role:
        for grant in needed_by("receiver"):
            execute(engine, f"GRANT {grant} TO {role}")
        url = as_role(database_url, role)
        with pytest.raises(UnfitDatabase, match="ingest encryption begin"):
            begin_writing(url)
        with pytest.raises(SettingsError, match="ingest encryption begin"):
            startup_check.check(replace(parse(url), body_keys=KEYS), writes_bodies=True)
        with keyed.begin() as connection:
            gate.begin(connection)
        begin_writing(url)
        deliver(url, [order(1)], keys=KEYS)
    assert keys_in_use(engine) == {KEYS.newest}


def test_a_writer_that_may_not_begin_answers_that_nothing_is_stored(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(engine, OLDER_WORKER)
    keyed = replace(parse(database_url), body_keys=KEYS)
    monkeypatch.setattr("tests.integration.test_writer.parse", lambda _url: keyed)

    async def ask() -> str:
        async with writing(database_url) as writer:
            problem = await writer.problem()
            assert problem is not None
            return problem.reason

    assert asyncio.run(ask()) == "older_worker"
    assert one(engine, "SELECT count(*) FROM deliveries") == 0
