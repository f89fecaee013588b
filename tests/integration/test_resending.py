"""Editing an event and sending it again: a copy with a name of its own, run as its origin's."""

import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine
from typer.testing import CliRunner

from ingest import resending
from ingest.cli import main
from ingest.cli.database import CommandError
from ingest.console.app import create_app
from ingest.console.auth import roles
from ingest.console.auth.identity import Identity
from ingest.encryption.keys import NO_KEYS, BodyKeys
from ingest.errors import IngestError, SettingsError
from ingest.resending import CannotResend, NotStored, Sent
from ingest.settings import Settings
from ingest.sources import operator, registry
from ingest.store import copies
from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from tests.integration.conftest import Worker
from tests.integration.test_erasure import OMAR, SARA, SOURCES, about_sara, erase, holds
from tests.integration.test_what_senders_send import BUILT_IN
from tests.support.asgi import Browser, ask, running
from tests.support.console import TOKEN, TOKENS, VIEWER_TOKEN
from tests.support.deliver import body, deliver
from tests.support.rows import execute, one, rows
from tests.support.sources import described
from workers import Event
from workers.registry import Declaration, processor

MakeWorker = Callable[..., Worker]
LIMIT = 1024 * 1024
NOURA = Identity(name="noura", role=roles.Role.OPERATOR, via="password")
TIME = "2024-01-20T10:30:00Z"


def order(**data: object) -> bytes:
    return body("order.created", {"order_id": 790, "created_at": TIME} | data)


@pytest.fixture
def worker(declared: list[Declaration], make_worker: MakeWorker) -> Worker:
    declared += BUILT_IN
    return make_worker()


def send(
    engine: Engine,
    database_url: str,
    event: UUID,
    edited: bytes,
    *,
    number: UUID | None = None,
    keys: BodyKeys | None = None,
    reason: str | None = "the total was wrong",
) -> Sent:
    database = replace(parse(database_url), body_keys=keys or NO_KEYS)
    with engine.connect() as connection:
        examined = _examined(connection, event, edited)
    return resending.send(
        engine,
        database,
        examined,
        number=number or uuid4(),
        by=NOURA,
        reason=reason,
        now=time.time(),
        random=os.urandom,
    )


def _examined(connection: Connection, event: UUID, edited: bytes) -> resending.Examined:
    found = resending.origin(connection, SOURCES, event)
    return resending.examine(connection, SOURCES, found, edited, body_limit=LIMIT)


def refused(engine: Engine, event: UUID, edited: bytes) -> CannotResend:
    with engine.connect() as connection, pytest.raises(CannotResend) as raised:
        _examined(connection, event, edited)
    return raised.value


def test_a_copy_runs_as_its_origins_and_is_no_event_of_the_sender(
    engine: Engine, database_url: str, declared: list[Declaration], make_worker: MakeWorker
) -> None:
    seen: list[Event] = []

    @processor("order.created", name="seen")
    def see(event: Event, _db: Connection) -> None:
        seen.append(event)

    declared += BUILT_IN
    worker = make_worker()
    (event,) = deliver(database_url, [order(total=1)])
    worker.process([event])
    sent = send(engine, database_url, event, order(total=2))
    worker.process([sent.event])
    again = deliver(database_url, [order(total=1), order(total=2)])
    worker.process(again)
    first, copy = seen
    assert (first.source, first.is_edited) == ("awalchat", False)
    assert (copy.source, copy.is_edited, copy.data["total"]) == ("awalchat", True, 2)
    assert copy.event_id.startswith("order.created:~awalchat:~")
    assert copy.idempotency_key != first.idempotency_key
    found = rows(engine, "SELECT id, source, type FROM events ORDER BY id")
    assert [(row["source"], row["type"]) for row in found] == [
        ("awalchat", "order.created"),
        (operator.SLUG, "order.created"),
    ]
    # The sender's own, the original and the edited content, are what they would be without a copy.
    duplicates = rows(engine, "SELECT event, conflict FROM duplicates ORDER BY delivery")
    assert [(row["event"], row["conflict"]) for row in duplicates] == [
        (event, False),
        (event, True),
    ]
    # Of one time, what the operator has set right stays in the read model.
    assert one(engine, "SELECT total FROM orders WHERE order_id = 790") == 2
    with engine.connect() as connection:
        made_from = copies.origin_of(connection, sent.event)
        (made,) = copies.of_event(connection, event)
    assert made_from is not None
    assert (made_from.origin, made_from.by, made_from.reason) == (
        event,
        "noura",
        "the total was wrong",
    )
    assert (made.event, made.is_stored) == (sent.event, True)
    audit = rows(engine, "SELECT by, action, target, reason FROM actions")
    assert audit == [
        {
            "by": "noura",
            "action": "resend",
            "target": str(event),
            "reason": "the total was wrong",
        }
    ]


def test_a_copy_sets_right_what_an_order_was_changed_to(
    engine: Engine, database_url: str, worker: Worker
) -> None:
    def change(new: str, old: str = "accepted") -> bytes:
        data = {"order_id": 790, "old_status": old, "new_status": new, "updated_at": TIME}
        return body("order.status.updated", data)

    accepted, shipped = deliver(database_url, [change("accepted", "pending"), change("shipped")])
    worker.process([accepted, shipped])
    assert one(engine, "SELECT status FROM orders") == "shipped"
    for status in ("accepted", "delivered"):  # by its chain the first is no end
        sent = send(engine, database_url, shipped, change(status))
        worker.process([sent.event])
        assert one(engine, "SELECT status FROM orders") == status
    worker.process([accepted, shipped])
    assert one(engine, "SELECT status FROM orders") == "delivered"


def test_one_order_is_sent_once_and_a_copy_can_be_edited_again(
    engine: Engine, database_url: str, worker: Worker
) -> None:
    (event, other) = deliver(database_url, [order(total=1), body("order.created", {"order_id": 1})])
    worker.process([event, other])
    number = uuid4()
    first = send(engine, database_url, event, order(total=2), number=number)
    again = send(engine, database_url, event, order(total=2), number=number)
    assert (again.event, first.is_new, again.is_new) == (first.event, True, False)
    with pytest.raises(CannotResend, match="used for another event"):
        send(engine, database_url, other, order(total=2), number=number)
    assert one(engine, "SELECT count(*) FROM deliveries WHERE source = 'operator'") == 1
    assert one(engine, "SELECT count(*) FROM actions") == 1
    worker.process([first.event])
    second = send(engine, database_url, first.event, order(total=3))
    worker.process([second.event])
    assert one(engine, "SELECT total FROM orders WHERE order_id = 790") == 3
    assert one(engine, "SELECT count(*) FROM jobs WHERE state <> 'succeeded'") == 0


def test_headers_stay_where_a_sender_signs_in_none(
    engine: Engine, database_url: str, worker: Worker
) -> None:
    """Its events may be named by one of them."""
    (event,) = deliver(database_url, [order(total=1)])
    worker.process([event])
    headers = [["content-type", "application/json"], ["x-kind", "paid"]]
    execute(
        engine,
        "UPDATE deliveries SET source = 'moyasar', headers = CAST(:headers AS jsonb)",
        headers=json.dumps(headers),
    )
    execute(engine, "UPDATE events SET source = 'moyasar'")
    sources = {"moyasar": described("moyasar", "s" * 20)}
    with engine.connect() as connection:
        origin = resending.origin(connection, sources, event)
    assert [list(pair) for pair in origin.headers] == headers


def test_what_cannot_be_sent_is_told_in_a_sentence(
    engine: Engine, database_url: str, worker: Worker
) -> None:
    original = order(total=1)
    event, *person = deliver(database_url, [original, *about_sara()])
    worker.process([event, *person])
    assert "Nothing is changed" in str(refused(engine, event, original))
    assert str(refused(engine, event, b"{")).startswith("AwalChat does not send this: the body")
    assert refused(engine, event, b'{"event": 1, "data": {}}').reason == "event_not_string"
    assert refused(engine, event, b" " * (LIMIT + 1)).reason == "body_too_large"
    erase(engine)
    assert "was erased" in str(refused(engine, person[0], original))
    execute(engine, "UPDATE deliveries SET body = NULL WHERE id = :id", id=event)
    assert "its retention ended" in str(refused(engine, event, order(total=2)))
    with engine.connect() as connection:
        assert not copies.made_of(connection, [event, *person])


def test_it_is_told_what_a_body_would_be_as_the_senders_own(
    engine: Engine, database_url: str, worker: Worker
) -> None:
    (event,) = deliver(database_url, [order(total=1)])
    worker.process([event])
    execute(
        engine,
        "INSERT INTO processors VALUES ('crm', '[\"order.*\"]', 'events', false, 1, 8, 30, now())",
    )
    with engine.connect() as connection:
        same = _examined(connection, event, order(total=2))
        other = _examined(connection, event, body("contact.created", {"id": 3}))
    assert (same.identity.event_id, same.known) == ("order.created:790", event)
    assert (other.identity.event_id, other.known) == ("contact.created:3", None)
    assert (same.processors, other.processors) == (("crm",), ())


def test_a_copy_of_an_encrypted_body_is_encrypted(engine: Engine, database_url: str) -> None:
    keys = BodyKeys([os.urandom(32)])
    (event,) = deliver(database_url, [order(total=1)], keys=keys)
    execute(engine, "INSERT INTO body_keys (id) VALUES (:id)", id=keys.newest)
    execute(
        engine,
        "INSERT INTO events SELECT delivery, source, event_id, type, fingerprint, received_at"
        " FROM unadmitted",
    )
    own = create_engine(replace(parse(database_url), body_keys=keys), role=Role.OPERATOR)
    sent = send(own, database_url, event, order(total=2), keys=keys)
    own.dispose()
    stored = rows(engine, "SELECT body, body_key FROM deliveries WHERE id = :id", id=sent.event)
    assert stored[0]["body_key"] == keys.newest
    assert b"total" not in stored[0]["body"]
    assert keys.open(stored[0]["body"], sent.event, keys.newest) == order(total=2)


def test_copies_are_erased_with_their_origin_and_with_whom_they_name(
    engine: Engine, database_url: str, worker: Worker
) -> None:
    said = about_sara()[0]
    (of_sara, of_nobody) = deliver(database_url, [said, order(total=1)])
    worker.process([of_sara, of_nobody])
    renamed = body(  # only the link tells that it was made of what Sara's event held
        "conversation.created", {"conversation_id": 99, "contact_id": 98, "phone_number": OMAR}
    )
    of_omar = send(engine, database_url, of_sara, renamed, reason=f"it was {SARA}")
    twice = send(
        engine, database_url, of_sara, said.replace(b'"contact_id": 5', b'"contact_id": 9')
    )
    named = send(engine, database_url, of_nobody, order(note=SARA), reason=None)
    worker.process([of_omar.event, twice.event])  # `named` waits for a worker
    assert holds(engine)
    erase(engine)
    assert not holds(engine)
    erased = {row["event"] for row in rows(engine, "SELECT event FROM erased_events")}
    assert erased == {of_sara, of_omar.event, twice.event, named.event}
    assert one(engine, "SELECT count(*) FROM copies WHERE reason IS NOT NULL") == 1


def test_an_operator_edits_in_the_console_and_a_viewer_does_not(
    engine: Engine,
    database_url: str,
    worker: Worker,
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    (event,) = deliver(database_url, [order(total=1)])
    worker.process([event])
    operators, viewers = (
        create_app(make_settings()),
        create_app(make_settings(console_tokens=TOKENS)),
    )
    with running(operators), running(viewers):
        console = Browser(app=operators)
        shown = console.get(f"/events/{event}/edit")
        number = re.search(r'name="number" value="([0-9a-f-]{36})"', shown.text)
        assert shown.status == 200
        assert number is not None
        form = {"body": order(total=2).decode(), "number": number[1], "reason": "wrong"}
        checked = console.post(f"/events/{event}/edit", form)
        assert "a known event" in checked.text
        assert 'class="diff-added"' in checked.text
        refused_form = console.post(f"/events/{event}/resend", form | {"body": "{"})
        assert "does not send this" in refused_form.text
        for _ in range(2):
            sent = console.post(f"/events/{event}/resend", form)
            assert (sent.status, sent.one("location")) == (303, f"/events/{event}#copies")
        (copy,) = (row["event"] for row in rows(engine, "SELECT event FROM copies"))
        assert "waits to be admitted" in console.get(f"/events/{event}").text
        worker.process([copy])
        assert f'href="/events/{copy}"' in console.get(f"/events/{event}").text
        assert f'href="/events/{event}"' in console.get(f"/events/{copy}").text
        headers = [
            ("host", "127.0.0.1:8001"),
            ("authorization", f"Bearer {VIEWER_TOKEN}"),
            ("content-type", "application/json"),
        ]
        order_ = b'{"body": "{}"}'
        assert ask(viewers, "GET", f"/events/{event}/edit", headers).status == 403
        path = f"/api/v1/events/{event}/resend"
        assert ask(viewers, "POST", path, headers, order_).status == 403
        headers[1] = ("authorization", f"Bearer {TOKEN}")
        assert ask(viewers, "POST", path, headers, order_).json()["error"] == "event_not_string"
        as_json = {"body": order(total=3).decode(), "number": str(uuid4())}
        told = ask(viewers, "POST", path, headers, json.dumps(as_json | {"dry_run": True}).encode())
        assert (told.json()["event"], told.json()["preview"]["known"]) == (None, str(event))
        again = [ask(viewers, "POST", path, headers, json.dumps(as_json).encode()) for _ in "ab"]
        assert [answer.json()["is_new"] for answer in again] == [True, False]
        assert again[0].json()["event"] == again[1].json()["event"]


def not_stored(*_: object, **__: object) -> None:
    raise NotStored("The connection broke.", reason="no_answer")


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_the_command_shows_an_order_and_sends_an_event_again(
    engine: Engine,
    database_url: str,
    worker: Worker,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INGEST_DATABASE_URL", database_url)
    monkeypatch.setenv("INGEST_REDIS_URL", "redis://127.0.0.1:1/0")
    (event,) = deliver(database_url, [order(total=1)])
    worker.process([event])
    (tmp_path / "body.json").write_bytes(order(total=2))
    command = ["resend", "order.created:790", "--body", str(tmp_path / "body.json")]

    def run(*arguments: str) -> str:
        ended = CliRunner().invoke(main.program(), arguments)
        assert ended.exit_code == 0, (ended.output, ended.exception)
        return ended.output

    assert "Nothing was sent." in run(*command, "--dry-run")
    for fails in (interrupted, not_stored):
        with monkeypatch.context() as without:
            without.setattr(resending, "send", fails)
            with pytest.raises(CommandError, match=r"--number [0-9a-f-]{36}: then") as failed:
                CliRunner().invoke(main.program(), command, catch_exceptions=False)
    again = str(failed.value).partition("--number ")[2].partition(":")[0]
    assert "Sent as event" in run(*command, "--reason", "wrong", "--number", again)
    assert "Sent before, as event" in run(*command, "--reason", "wrong", "--number", again)
    (copy,) = (row["event"] for row in rows(engine, "SELECT event FROM copies"))
    worker.process([copy])
    shown = run("show", "order", "790", "--oldest-first")
    assert shown.startswith("Order 790: 2 events\n")
    assert "total 1 (replaced)" in shown
    stored = json.loads(run("show", "order", "790", "--json"))
    assert [entry["event"]["id"] for entry in stored["entries"]] == [str(copy), str(event)]
    for wrong, sentence in (
        (["show", "ordr", "790"], "ordr is none of conversation, phone, order, message, contact."),
        (["show", "order", " "], "Order: that cannot be the id of one."),
        (["resend", str(event), "--body", "nothing"], "Cannot read nothing"),
    ):
        ended = CliRunner().invoke(main.program(), wrong)
        assert isinstance(ended.exception, IngestError)
        assert sentence in str(ended.exception)


def test_no_sender_may_be_called_operator() -> None:
    with pytest.raises(SettingsError, match="another source has this name"):
        registry.use({operator.SLUG: type(SOURCES["shop-one"])})


def test_an_event_id_tells_who_reads_the_body() -> None:
    number = uuid4()
    odd = operator.event_id("a:~b", "shop-one", number)
    assert operator.reader(operator.SLUG, odd) == "shop-one"
    assert operator.reader("awalchat", odd) == "awalchat"
    assert operator.reader(operator.SLUG, "something") == operator.SLUG
    assert operator.reader(operator.SLUG, None) == operator.SLUG
