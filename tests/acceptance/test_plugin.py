"""A source from outside works everywhere, without a line of ours changed."""

import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.harness import Answer, Stack, request
from tests.support.waiting import until

PLUGIN = Path(__file__).parents[1] / "plugin"
LEDGER_SECRET = "the_secret_of_the_ledger_0123456789"
PARCEL_SECRET = "the_secret_of_the_parcels_0123456789"
PROCESSORS = """
from workers import processor

@processor("parcel.sent")
def track(event, db):
    assert event.data == {"parcel": 7}

@processor("entry.posted")
def note(event, db):
    assert event.source == "ledger"
    assert event.data["kind"] == event.type
"""


@pytest.fixture
def stack(make_stack: Callable[..., Stack], tmp_path: Path) -> Stack:
    (tmp_path / "of_the_user.py").write_text(PROCESSORS)
    made = make_stack(
        ledger_secrets=LEDGER_SECRET, parcel_secrets=PARCEL_SECRET, processors="of_the_user"
    )
    made.environment["PYTHONPATH"] = f"{PLUGIN}:{tmp_path}"
    return made


def post(stack: Stack, body: bytes, *, secret: str = LEDGER_SECRET) -> Answer:
    """Post a body, signed by the standard library alone."""
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-Ledger-Signature": f"sha256={digest}"}
    return request(stack.ports[0], "POST", "/webhooks/ledger", body, headers)


def listed(stack: Stack, *arguments: str) -> list[dict[str, Any]]:
    said = stack.command("events", "list", *arguments, "--json")
    return [json.loads(line) for line in said.splitlines()]


def test_what_it_signed_is_received_deduplicated_worked_on_and_found(stack: Stack) -> None:
    stack.receiver()
    stack.worker()
    stack.relay()
    entry = b'{"kind": "entry.posted", "number": 4711}'
    assert post(stack, entry).status == 200
    assert post(stack, entry).status == 200
    assert post(stack, entry, secret="another_secret_0123456789").status == 401
    assert post(stack, b'{"number": 4712}').json["error"] == "kind_missing"
    assert post(stack, b'{"kind": "entry.voided", "number": 4713}').status == 200
    until(lambda: len(listed(stack)) == 2, what="the events are admitted")
    stack.wait_until_idle()
    voided, posted = listed(stack, "--query", "source:ledger")
    assert (posted["type"], posted["event_id"]) == ("entry.posted", "entry.posted:4711")
    assert (posted["state"], voided["state"]) == ("succeeded", "unhandled")
    # No read model knows the ledger's entries: those that nobody handles are looked through.
    assert [event["id"] for event in listed(stack, "--query", "order:4713")] == [voided["id"]]
    assert stack.post(b'{"event": "order.created", "data": {"order_id": 1}}').status == 200


def test_its_bodies_have_the_limit_that_it_declares(stack: Stack) -> None:
    stack.receiver()
    entry = b'{"kind": "entry.posted", "number": 1}'
    assert post(stack, entry.ljust(2 * 1024 * 1024)).status == 200
    assert post(stack, entry.ljust(2 * 1024 * 1024 + 1)).status == 413


def test_one_that_needs_all_of_the_request_gets_it(stack: Stack) -> None:
    """It signs the address with its query, and names type and id in headers."""
    stack.receiver()
    stack.worker()
    stack.relay()
    body = b'{"parcel": 7}'

    def send(target: str, to: str = "/webhooks/parcel?shop=1", **more: str) -> Answer:
        signed = hmac.new(PARCEL_SECRET.encode(), f"POST {target}\n".encode() + body, "sha256")
        headers = {"X-Parcel-Signature": signed.hexdigest()} | more
        return request(stack.ports[0], "POST", to, body, headers)

    names = {"X-Parcel-Event": "parcel.sent", "X-Parcel-Id": "p-1"}
    assert send("/webhooks/parcel?shop=2", **names).status == 401
    answer = send("/webhooks/parcel?shop=1", **names)
    assert (answer.status, answer.body) == (200, b"thanks")
    assert answer.headers["content-type"] == "text/plain"
    again = send("/webhooks/parcel", to="/webhooks/parcel", **names)
    assert (again.status, again.body, again.headers["content-type"]) == (
        200,
        b"thanks",
        "text/plain",
    )
    assert send("/webhooks/parcel?shop=1").json["error"] == "headers_missing"
    until(lambda: len(listed(stack)) == 1, what="the event is admitted")
    stack.wait_until_idle()
    (event,) = listed(stack, "--query", "source:parcel")
    assert (event["type"], event["event_id"]) == ("parcel.sent", "parcel.sent:p-1")
    assert event["state"] == "succeeded"


def test_a_challenge_by_get_is_computed_and_answered_as_text(stack: Stack) -> None:
    stack.receiver()
    answer = request(stack.ports[0], "GET", "/webhooks/parcel?token=abc")
    expected = hmac.new(PARCEL_SECRET.encode(), b"abc", "sha256").hexdigest()
    assert (answer.status, answer.body) == (200, expected.encode())
    assert answer.headers["content-type"] == "text/plain"
    for target in ("/webhooks/parcel", "/webhooks/ledger?token=abc", "/webhooks/nobody"):
        refused = request(stack.ports[0], "GET", target)
        assert (refused.status, refused.headers["allow"]) == (405, "POST")


def test_it_is_listed_sent_and_simulated(stack: Stack) -> None:
    stack.receiver()
    stack.worker()
    stack.relay()
    url = f"http://127.0.0.1:{stack.ports[0]}/webhooks/ledger"
    sources = [json.loads(line) for line in stack.command("sources", "--json").splitlines()]
    slugs = [source["source"] for source in sources]
    assert {"awalchat", "ledger", "parcel"} <= {*slugs}
    stack.command("send", "entry.voided", "--source", "ledger", "--url", url, "--count", "3")
    sentence = stack.command("send", "order.created", "--source", "nobody", ok=False)
    assert f"There is no source nobody; there is {', '.join(slugs)}." in sentence
    stack.command("simulate", "--source", "ledger", "--url", url, "--duration", "1", "--rate", "20")
    stack.wait_until_idle()
    sent = listed(stack, "--query", "source:ledger", "--limit", "100")
    assert len([event for event in sent if event["type"] == "entry.voided"]) >= 3
    assert len(sent) > 3


def test_the_console_sends_its_samples_and_signs_what_is_copied(stack: Stack) -> None:
    stack.receiver()
    stack.worker()
    stack.relay()
    stack.console(receiver_url=f"http://127.0.0.1:{stack.ports[0]}")
    sent = stack.tell("/test-event", {"source": "ledger"}).json
    assert (sent["type"], sent["status"]) == ("entry.posted", 200)
    until(lambda: bool(listed(stack)), what="the event is admitted")
    (event,) = listed(stack, "--query", "source:ledger")
    page = stack.ask(f"/events/{event['id']}").body.decode()
    assert "X-Ledger-Signature: sha256=" in page
    assert "/webhooks/ledger" in page
    sent = stack.tell("/test-event", {"type": "of.ours"}).json
    assert (sent["type"], sent["status"]) == ("of.ours", 200)
    refused = stack.tell("/test-event", {"source": "nobody"})
    assert (refused.status, refused.json["error"]) == (400, "bad_source")


@pytest.mark.parametrize(
    ("entry_point", "sentence"),
    [
        ("ledger = no_such_module:Ledger", "no_such_module:Ledger: ModuleNotFoundError"),
        ("ledger = ledger:strict_json", "ledger:strict_json is no class of a source"),
        ("other = ledger:Ledger", "ledger:Ledger has another slug"),
        ("awalchat = ledger:Ledger", "ledger:Ledger has another slug"),
        ("A-b = ledger:Ledger", "a name is lower-case letters, digits and dashes"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_told_in_a_sentence(
    entry_point: str, sentence: str, make_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[ingest.sources]\n{entry_point}\n")
    (tmp_path / "ledger.py").write_text((PLUGIN / "ledger.py").read_text())
    stack = make_stack()
    stack.environment["PYTHONPATH"] = str(tmp_path)
    said = stack.command("sources", ok=False)
    assert "The source" in said
    assert sentence in said
    assert "Traceback" not in said
