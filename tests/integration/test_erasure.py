"""Erasing a person: what goes, what stays, and that nothing brings the person back."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import pytest
from psycopg.errors import LockNotAvailable
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from ingest.erasure.request import BadPerson
from ingest.erasure.spellings import Spellings
from ingest.sources.base import Source
from ingest.store.bulk import replay
from ingest.store.pipeline import jobs
from ingest.store.schema import READ_MODEL
from ingest.store.search.filters import EventFilter
from tests.integration.conftest import Worker
from tests.integration.test_what_senders_send import BUILT_IN
from tests.support.deliver import body, deliver
from tests.support.erasing import begin, everything, finish, store, wamid
from tests.support.meta import body_of, change, whatsapp
from tests.support.meta import text as message_of
from tests.support.rows import execute, one, rows
from tests.support.sources import awalchat, described
from tests.unit.test_twilio import twilio
from workers.registry import Declaration, processor

SARA, OMAR = "966512345678", "966598765432"
SHOP, NEW = "966500000001", "966533334444"
AWALCHAT, WHATSAPP, TWILIO = awalchat(), whatsapp(), twilio()
SHOPIFY = described("shopify", slug="shop-one", id=["{path:id}"], type=["{path:topic}"])
SOURCES: dict[str, Source] = {one.slug: one for one in (AWALCHAT, WHATSAPP, TWILIO, SHOPIFY)}
MakeWorker = Callable[..., Worker]


def message(number: str, conversation: int, text: str = "hello", **more: Any) -> bytes:
    return body(
        "message.received",
        {
            "message_id": wamid(number, text.encode()[:5]),
            "conversation_id": conversation,
            "from": number,
            "to": SHOP,
            "type": "text",
            "body": text,
        }
        | more,
    )


def about_sara() -> list[bytes]:
    """What AwalChat says of a person; half of it does not name the number."""
    return [
        body("conversation.created", {"conversation_id": 7, "contact_id": 5, "phone_number": SARA}),
        body("contact.created", {"id": 5, "name": "Sara", "phone": "+966 51 234 5678"}),
        message(SARA, 7),
        body("message.status.updated", {"message_id": wamid(SARA, b"hello"), "status": "read"}),
        body("conversation.updated", {"conversation_id": 7, "status": "closed"}),
        body("order.created", {"order_id": 70, "conversation_id": 7, "total": 12.5}),
        body("order.status.updated", {"order_id": 70, "old_status": "a", "new_status": "b"}),
        body("voice.note", {"caller": "00966-51-234-5678"}),
    ]


def about_omar() -> list[bytes]:
    return [
        body("conversation.created", {"conversation_id": 8, "contact_id": 6, "phone_number": OMAR}),
        body("contact.created", {"id": 6, "name": "Omar", "phone": OMAR}),
        message(OMAR, 8),
        body("order.created", {"order_id": 80, "conversation_id": 8, "total": 3}),
    ]


@pytest.fixture
def worker(declared: list[Declaration], make_worker: MakeWorker) -> Worker:
    declared += BUILT_IN
    return make_worker()


def erase(engine: Engine, phone: str = SARA) -> None:
    number, _ = begin(engine, phones=[phone], sources=SOURCES)
    finish(engine, number, SOURCES)


def holds(engine: Engine, phone: str = SARA) -> bool:
    """Whether any row of any table holds a number, in any spelling."""
    return Spellings({phone}).are_in(everything(engine))


def test_everything_of_a_person_goes_and_nothing_of_anybody_else(
    engine: Engine, database_url: str, worker: Worker
) -> None:
    worker.process(store(database_url, AWALCHAT, about_omar()))
    before = everything(engine)
    worker.process(store(database_url, AWALCHAT, about_sara()))
    assert holds(engine)
    number, counts = begin(engine, phones=["+966 51 234 5678"], sources=SOURCES)
    assert counts.sources == {"awalchat": 8}
    assert finish(engine, number, SOURCES).status == "finished"
    assert not holds(engine)
    assert "Sara" not in everything(engine)
    kept = set(everything(engine).splitlines())
    of_omar = {line for line in before.splitlines() if not line.startswith(("tot", "act", "proc"))}
    assert of_omar <= kept
    assert one(engine, "SELECT count(*) FROM events") == 12
    assert one(engine, "SELECT count(*) FROM erased_events") == 8


def test_a_late_duplicate_is_counted_and_brings_nobody_back(
    engine: Engine, database_url: str, worker: Worker
) -> None:
    worker.process(store(database_url, AWALCHAT, about_sara()))
    erase(engine)
    late = store(database_url, AWALCHAT, about_sara())
    assert holds(engine)
    worker.process(late)
    assert not holds(engine)
    assert one(engine, "SELECT count(*) FROM events") == 8
    assert one(engine, "SELECT count(*) FROM duplicates WHERE NOT conflict") == 8
    assert one(engine, "SELECT count(*) FROM messages") == 0


def test_a_late_duplicate_in_another_batch_is_erased_with_its_batch(
    engine: Engine, database_url: str, worker: Worker
) -> None:
    sara = message_of(1, **{"from": SARA, "id": wamid(SARA)})
    omar, maha = message_of(2, **{"from": OMAR, "id": wamid(OMAR)}), message_of(3)
    worker.process(store(database_url, WHATSAPP, [body_of(change(messages=[sara, omar]))]))
    erase(engine)
    assert not holds(engine)
    assert holds(engine, OMAR)
    assert one(engine, "SELECT count(*) FROM whatsapp_messages") == 1
    worker.process(store(database_url, WHATSAPP, [body_of(change(messages=[sara, maha]))]))
    assert not holds(engine)
    assert one(engine, "SELECT count(*) FROM whatsapp_messages") == 2


def test_a_conversation_of_two_people_keeps_what_names_the_other(
    engine: Engine, database_url: str, worker: Worker
) -> None:
    shared = [
        message(SARA, 9),
        message(OMAR, 9, "here is Omar"),
        body("order.created", {"order_id": 90, "conversation_id": 9}),
        message(OMAR, 9, f"call {SARA}"),
    ]
    worker.process(store(database_url, AWALCHAT, shared))
    with pytest.raises(BadPerson, match="2 people"):
        begin(engine, conversations=["9"], sources=SOURCES)
    erase(engine)
    assert not holds(engine)
    kept = rows(engine, "SELECT from_number, body FROM messages ORDER BY body")
    assert kept == [
        {"from_number": OMAR, "body": "here is Omar"},
        {"from_number": OMAR, "body": None},
    ]
    assert one(engine, "SELECT count(*) FROM orders") == 1


@pytest.mark.parametrize("given", [{"conversations": ["7"]}, {"contacts": ["5"]}])
def test_a_conversation_or_a_contact_leads_to_the_number(
    engine: Engine, database_url: str, worker: Worker, given: dict[str, Any]
) -> None:
    worker.process(store(database_url, AWALCHAT, [*about_omar(), *about_sara()]))
    number, _ = begin(engine, **given, sources=SOURCES)
    finish(engine, number, SOURCES)
    assert not holds(engine)
    assert holds(engine, OMAR)
    assert one(engine, "SELECT count(*) FROM erased_events") == 8


def test_other_senders_and_headers_and_rejected_requests_are_searched(
    engine: Engine, database_url: str, worker: Worker
) -> None:
    form = {"MessageSid": "SM1", "MessageStatus": "sent", "To": "+966 512345678", "From": SHOP}
    worker.process(store(database_url, TWILIO, [urlencode(form).encode()]))
    customer = b'{"id": 1, "topic": "customers/update", "phone": "+96651-234-5678"}'
    other = b'{"id": 2, "topic": "customers/update", "phone": null}'
    worker.process(store(database_url, SHOPIFY, [customer, other]))
    store(database_url, AWALCHAT, [f"no event: {SARA}".encode()])
    headers = f'[["x-user", "{SARA}"]]'
    worker.process(store(database_url, AWALCHAT, [body("ping", {"n": 1})], headers=headers))
    number, counts = begin(engine, phones=[SARA], sources=SOURCES)
    assert counts.sources == {"twilio": 1, "shop-one": 1, "awalchat": 2}
    finish(engine, number, SOURCES)
    assert not holds(engine)
    assert one(engine, "SELECT count(*) FROM deliveries WHERE body IS NOT NULL") == 1


def written(number: int, user_id: str | None, phone: str, **more: Any) -> bytes:
    """A message on WhatsApp; the number stands in its id, too."""
    sender = {"from": phone} | ({"from_user_id": user_id} if user_id else {})
    told = message_of(number, **sender, id=wamid(phone, b"%06d" % number), **more)
    return body_of(change(messages=[told]))


def test_whoever_has_the_number_of_an_erased_user_id_next_keeps_what_is_theirs(
    engine: Engine, database_url: str, worker: Worker
) -> None:
    others = [written(3, "SA.bbbbbbbb", SARA), written(4, "SA.bbbbbbbb", OMAR)]
    moved = {"type": "user_changed_number", "user_id": "SA.cccccccc", "wa_id": NEW}
    own = [
        written(1, None, SARA, text={"body": "before there were user ids"}),
        written(2, "SA.aaaaaaaa", SARA),
        written(5, "SA.aaaaaaaa", SARA, type="system", system=moved),
        written(6, "SA.cccccccc", NEW),
    ]
    worker.process(store(database_url, WHATSAPP, [*own[:2], *others, *own[2:]]))
    number, counts = begin(engine, contacts=["SA.aaaaaaaa"], sources=SOURCES)
    assert counts.sources == {"whatsapp": len(own)}
    finish(engine, number, SOURCES)
    kept = rows(engine, "SELECT body FROM deliveries WHERE body IS NOT NULL")
    assert {bytes(row["body"]) for row in kept} == set(others)
    kept = rows(
        engine, "SELECT contact_user_id AS id, contact_phone AS phone FROM whatsapp_messages"
    )
    assert {(row["id"], row["phone"]) for row in kept} == {
        ("SA.bbbbbbbb", SARA),
        ("SA.bbbbbbbb", OMAR),
    }
    assert rows(engine, "SELECT contact_id, phone FROM whatsapp_contacts") == [
        {"contact_id": "SA.bbbbbbbb", "phone": OMAR}
    ]
    kept = rows(engine, "SELECT identity FROM whatsapp_identities ORDER BY identity")
    assert [row["identity"] for row in kept] == [OMAR, "SA.bbbbbbbb"]
    assert "SA.aaaaaaaa" not in everything(engine)
    assert "SA.cccccccc" not in everything(engine)
    assert not holds(engine, NEW)


def test_a_number_that_is_given_leads_to_all_who_had_it(
    engine: Engine, database_url: str, worker: Worker
) -> None:
    worker.process(store(database_url, WHATSAPP, [written(1, "SA.aaaaaaaa", SARA)]))
    worker.process(store(database_url, WHATSAPP, [written(2, "SA.bbbbbbbb", SARA)]))
    worker.process(store(database_url, WHATSAPP, [written(3, "SA.bbbbbbbb", OMAR)]))
    number, counts = begin(engine, phones=[SARA], sources=SOURCES)
    assert counts.sources == {"whatsapp": 3}
    finish(engine, number, SOURCES)
    assert not holds(engine)
    assert not holds(engine, OMAR)


def test_errors_searches_and_refusals_are_searched(
    engine: Engine, database_url: str, declared: list[Declaration], make_worker: MakeWorker
) -> None:
    @processor("order.created", max_attempts=1)
    def fail(event: Any, db: Any) -> None:
        raise ValueError(f"no customer has +966 51 234 5678 or {OMAR}")

    worker = make_worker()
    worker.process(
        store(database_url, AWALCHAT, [body("order.created", {"order_id": n}) for n in (1, 2)])
    )
    assert holds(engine)
    with engine.begin() as connection:
        for about in (("phone", SARA), ("phone", OMAR)):
            replay.begin(
                connection,
                EventFilter(about=(about,)),
                requested_by="op",
                reason=f"asked by {about[1]}",
            )
    execute(
        engine,
        "INSERT INTO actions (by, action, target, reason) VALUES"
        " ('op', 'replay', 'phone:966512345678', NULL), ('op', 'pause', 'orders', 'Omar')",
    )
    execute(
        engine,
        "INSERT INTO refusals (reason, slot, at, source, client, detail) VALUES"
        " ('bad', 0, now(), 'awalchat', '127.0.0.1', '{\"user-agent\": \"966512345678\"}'),"
        " ('bad', 1, now(), 'awalchat', '127.0.0.1', '{}')",
    )
    erase(engine)
    assert not holds(engine)
    assert rows(engine, "SELECT state, discarded_at FROM jobs WHERE discarded_at IS NULL") != []
    with engine.connect() as connection:
        selections = [one.selection.about for one in replay.operations(connection, limit=5)]
    assert selections == [(("phone", OMAR),), (("phone", "(erased)"),)]
    assert one(engine, "SELECT count(*) FROM refusals") == 1
    assert [row["target"] for row in rows(engine, "SELECT target FROM actions ORDER BY id")] == [
        "(erased)",
        "orders",
    ]


def test_the_search_of_a_bulk_action_that_names_a_contact_is_erased(
    engine: Engine, database_url: str, worker: Worker
) -> None:
    worker.process(store(database_url, AWALCHAT, [*about_sara(), *about_omar()]))
    with engine.begin() as connection:
        for contact in ("5", "6"):
            selection = EventFilter(about=(("contact", contact),))
            replay.begin(connection, selection, requested_by="op", reason=None)
    erase(engine)
    with engine.connect() as connection:
        selections = [one.selection.about for one in replay.operations(connection, limit=5)]
    assert selections == [(("contact", "6"),), (("contact", "(erased)"),)]


def test_a_number_that_is_learned_while_erasing_is_looked_for_in_what_was_read_before(
    engine: Engine, database_url: str, worker: Worker
) -> None:
    other = "966511112222"
    an_hour_ago = time.time() - 3_600
    worker.process(deliver(database_url, [body("voice.note", {"caller": other})], now=an_hour_ago))
    worker.process(store(database_url, AWALCHAT, about_sara()))
    number, _ = begin(engine, phones=[SARA], sources=SOURCES)
    changed = body("contact.updated", {"id": 5, "name": "Sara", "phone": other})
    worker.process(store(database_url, AWALCHAT, [changed]))
    finish(engine, number, SOURCES)
    assert not holds(engine)
    assert not holds(engine, other)


def test_a_job_that_runs_meanwhile_cannot_write_the_person_back(
    engine: Engine, database_url: str, declared: list[Declaration], make_worker: MakeWorker
) -> None:
    has_begun, goes_on = threading.Event(), threading.Event()
    declared += BUILT_IN

    @processor("message.received")
    def wait(event: Any, db: Any) -> None:
        has_begun.set()
        assert goes_on.wait(300)
        db.exec_driver_sql(
            "INSERT INTO ingest.contacts (contact_id, phone, versions, last_event_id)"
            " VALUES (1, %s, '{}', 'x')",
            (event.data["from"],),
        )

    worker = make_worker()
    deliveries = store(database_url, AWALCHAT, [message(SARA, 7)])
    working = threading.Thread(target=worker.process, args=(deliveries,))
    working.start()
    try:
        assert has_begun.wait(300)
        erase(engine)
        assert not holds(engine)
    finally:
        goes_on.set()
        working.join(300)
    assert not holds(engine)
    states = rows(engine, "SELECT state FROM jobs")
    assert {row["state"] for row in states} == {"dead", "succeeded"}
    assert one(engine, "SELECT outcome FROM attempts WHERE number = 1") == "discarded"


def test_what_waits_for_admission_becomes_a_tombstone_without_a_job(
    engine: Engine, database_url: str, worker: Worker
) -> None:
    waiting = store(database_url, AWALCHAT, about_sara())
    erase(engine)
    worker.process(waiting)
    assert not holds(engine)
    assert one(engine, "SELECT count(*) FROM events") == 8
    assert one(engine, "SELECT count(*) FROM jobs") == 0
    assert one(engine, "SELECT count(*) FROM unhandled") == 0


def test_an_erasure_that_was_killed_goes_on_and_says_the_same(
    engine: Engine, database_url: str, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ingest.store.erasure import ledger

    worker.process(store(database_url, AWALCHAT, [*about_omar(), *about_sara()]))
    number, counts = begin(engine, phones=[SARA], sources=SOURCES)
    monkeypatch.setattr(ledger, "_READ", ledger.read_of(rows=3))

    class Killed(BaseException):
        pass

    calls = iter(range(100))
    original = jobs.revoke

    def revoke(*given: Any, **named: Any) -> int:
        if next(calls) == 1:
            raise Killed
        return original(*given, **named)

    monkeypatch.setattr(jobs, "revoke", revoke)
    with pytest.raises(Killed):
        finish(engine, number, SOURCES)
    assert 0 < one(engine, "SELECT count(*) FROM erased_events") < 8
    ended = finish(engine, number, SOURCES)
    assert not holds(engine)
    assert ended.counts["tables"]["events"] == counts.tables["events"] == 8
    assert ended.identifiers is None


def test_nobody_is_erased_while_a_worker_of_an_older_release_runs(
    engine: Engine, database_url: str, worker: Worker
) -> None:
    worker.process(store(database_url, AWALCHAT, about_sara()))
    execute(
        engine,
        "INSERT INTO processes (id, kind, host, pid, version, started_at, seen_at)"
        " VALUES ('old', 'worker', 'h', 1, '0', now(), now())",
    )
    refused = erase_by_command(database_url, "--yes")
    assert refused.returncode == 1
    assert "worker old is of an older release" in refused.stderr
    assert holds(engine)
    execute(engine, "DELETE FROM processes")
    assert erase_by_command(database_url, "--yes").returncode == 0
    assert not holds(engine)
    # Code of before revision 0013 is refused its start from now on.
    assert one(engine, "SELECT min(oldest_code) FROM revisions WHERE revision >= '0013'") == "0013"


def test_a_person_is_erased_where_the_read_model_has_no_tables(
    engine: Engine, database_url: str, declared: list[Declaration], make_worker: MakeWorker
) -> None:
    for table in READ_MODEL:
        execute(engine, f"DROP TABLE {table.name}")
    make_worker().process(store(database_url, AWALCHAT, about_sara()))
    done = erase_by_command(database_url, "--yes", "--reason", "ticket 12")
    assert done.returncode == 0, done.stderr
    assert not holds(engine)
    assert rows(engine, "SELECT action, target, reason FROM actions") == [
        {"action": "erase person", "target": "erasure 1", "reason": "ticket 12"}
    ]


def erase_by_command(database_url: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ingest", "erase", "--phone", SARA, *options],
        env=os.environ | {"INGEST_DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_second_erasure_erases_what_has_come_since(
    engine: Engine, database_url: str, worker: Worker
) -> None:
    worker.process(store(database_url, AWALCHAT, about_sara()))
    erase(engine)
    worker.process(store(database_url, AWALCHAT, [message(SARA, 7, "it is me again")]))
    assert holds(engine)
    number, counts = begin(engine, phones=[SARA], sources=SOURCES)
    assert counts.sources == {"awalchat": 1}
    finish(engine, number, SOURCES)
    assert not holds(engine)
    assert one(engine, "SELECT count(DISTINCT persons) FROM erasures") == 1


def process_in_the_end(worker: Worker, deliveries: Sequence[UUID]) -> None:
    """Process them as often as it takes. While a batch is erased nothing is admitted: a worker
    gives up after ten seconds, and the relay dispatches them anew."""
    while True:
        try:
            return worker.process(deliveries)
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable):
                raise


def test_duplicates_that_come_while_it_runs_find_the_tombstones(
    engine: Engine, database_url: str, declared: list[Declaration], make_worker: MakeWorker
) -> None:
    declared += BUILT_IN
    stop = threading.Event()

    def deliver_again(name: str) -> None:
        worker = make_worker(name=name)
        for _ in range(100):  # without a bound, a slow erasure is given ever more to read
            if stop.is_set():
                return
            process_in_the_end(worker, store(database_url, AWALCHAT, about_sara()))

    make_worker().process(store(database_url, AWALCHAT, about_sara()))
    threads = [threading.Thread(target=deliver_again, args=(f"test:{n}",)) for n in (2, 3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            erase(engine)
    finally:
        stop.set()
        for thread in threads:
            thread.join(300)
    assert one(engine, "SELECT count(*) FROM unadmitted") == 0
    assert one(engine, "SELECT count(*) FROM events") == 8
    assert not holds(engine)


def test_a_tombstone_is_not_replayed(engine: Engine, database_url: str, worker: Worker) -> None:
    worker.process(store(database_url, AWALCHAT, about_sara()))
    erase(engine)
    event = one(engine, "SELECT id FROM events WHERE type = 'order.created'")
    with engine.connect() as connection:
        counts = replay.count(connection, EventFilter(ids=(event,)))
    assert (counts.jobs, counts.gone) == (0, 1)


def test_only_one_source_if_it_is_named(engine: Engine, database_url: str, worker: Worker) -> None:
    worker.process(store(database_url, AWALCHAT, about_sara()))
    sara = message_of(1, **{"from": SARA, "id": wamid(SARA)})
    worker.process(store(database_url, WHATSAPP, [body_of(change(messages=[sara]))]))
    number, counts = begin(engine, phones=[SARA], sources=SOURCES, source="whatsapp")
    assert counts.sources == {"whatsapp": 1}
    finish(engine, number, SOURCES)
    assert one(engine, "SELECT count(*) FROM whatsapp_messages") == 0
    assert one(engine, "SELECT count(*) FROM messages") == 1


@pytest.mark.parametrize("given", ["", "abc", "12", "1" * 16, "+966 51 x"])
def test_what_is_no_phone_number_is_refused_without_repeating_it(given: str) -> None:
    from ingest.erasure import request

    with pytest.raises(BadPerson) as refused:
        request.parse([given], [], [])
    assert not given or given not in str(refused.value)
