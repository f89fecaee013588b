"""Senders besides the default one, with real processes: what they post is stored, named, worked on
and found; without their secrets they are not there."""

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from twilio.request_validator import RequestValidator

from tests.acceptance.harness import Answer, Stack, request
from tests.support.meta import APP_SECRET, TOKEN, body_of, change, signature, status, text
from tests.support.waiting import until

TWILIO_URL = "https://hooks.example/webhooks/twilio"
AUTH_TOKEN = "the_auth_token_of_the_tests_01234"
SECRET_TOKEN = "the_secret_token_of_the_tests_012"
PROCESSORS = """
from workers import processor

@processor("messages.*")
def answer(event, db):
    value = event.data["entry"][0]["changes"][0]["value"]
    assert value["messages"][0]["text"]["body"] == "text 7"

@processor("messaging.*")
def count(event, db):
    assert event.data["Body"] == "\u00e9 & 1"
"""


@pytest.fixture
def stack(make_stack: Callable[..., Stack], tmp_path: Path) -> Stack:
    (tmp_path / "of_the_user.py").write_text(PROCESSORS)
    made = make_stack(
        whatsapp_secrets=APP_SECRET,
        whatsapp_verify_token=TOKEN,
        twilio_secrets=AUTH_TOKEN,
        twilio_public_url=TWILIO_URL,
        zoom_secrets=SECRET_TOKEN,
        processors="of_the_user",
    )
    made.environment["PYTHONPATH"] = str(tmp_path)
    return made


def post(stack: Stack, slug: str, body: bytes, headers: dict[str, str]) -> Answer:
    return request(stack.ports[0], "POST", f"/webhooks/{slug}", body, headers)


def from_meta(stack: Stack, body: bytes) -> Answer:
    return post(stack, "whatsapp", body, {"X-Hub-Signature-256": signature(body).decode()})


def from_twilio(stack: Stack, form: dict[str, str]) -> Answer:
    signed = RequestValidator(AUTH_TOKEN).compute_signature(TWILIO_URL, form)
    headers = {"X-Twilio-Signature": signed, "Content-Type": "application/x-www-form-urlencoded"}
    return post(stack, "twilio", urlencode(form).encode(), headers)


def listed(stack: Stack, query: str) -> list[dict[str, Any]]:
    said = stack.command("events", "list", "--query", query, "--json")
    return [json.loads(line) for line in said.splitlines()]


def test_what_they_post_is_stored_deduplicated_worked_on_and_found(stack: Stack) -> None:
    stack.environment["INGEST_READ_MODEL"] = "false"  # it would handle the statuses
    stack.receiver()
    stack.worker()
    stack.relay()
    message = body_of(change(messages=[text(7)]))
    assert [from_meta(stack, message).status for _ in range(2)] == [200, 200]
    assert from_meta(stack, body_of(change(statuses=[status(7, "read")]))).status == 200
    assert from_meta(stack, body_of(change(messages=[{}]))).json["error"] == "id_missing"
    form = {"MessageSid": "SM1", "SmsStatus": "received", "Body": "é & 1"}
    answer = from_twilio(stack, form)
    assert (answer.status, answer.body) == (200, b"<Response/>")
    assert answer.headers["content-type"] == "text/xml"
    assert from_twilio(stack, form).status == 200
    assert from_twilio(stack, {"CallSid": "CA1", "CallStatus": "busy"}).status == 200
    until(lambda: len(listed(stack, "")) == 4, what="the events are admitted")
    stack.wait_until_idle()
    (found,) = listed(stack, "source:twilio type:messaging.*")
    assert (found["type"], found["event_id"]) == ("messaging.received", "messaging:SM1:received")
    assert (found["state"], found["deliveries"]) == ("succeeded", 2)
    (found,) = listed(stack, "source:whatsapp type:messages.*")
    assert (found["type"], found["event_id"]) == ("messages.text", "messages:wamid.7")
    assert (found["state"], found["deliveries"]) == ("succeeded", 2)
    status_of, message_itself = listed(stack, "message:wamid.7")
    assert (status_of["type"], status_of["state"]) == ("statuses.read", "unhandled")
    assert message_itself == found
    # Without the read model, what nobody handles is looked through for a number.
    assert listed(stack, "phone:966500000007") == [status_of]


def test_a_batch_of_meta_is_an_event_for_each_update(stack: Stack) -> None:
    """A thousand updates of which half are known and three are broken; then the same five times at
    once."""
    stack.receiver()
    stack.worker()
    stack.relay()
    known = body_of(change(messages=[text(number, type="reaction") for number in range(500)]))
    assert from_meta(stack, known).status == 200
    until(lambda: stack.stats()["events"]["total"] == 500, what="the first half is admitted")
    both = [text(number, type="reaction") for number in range(500)]
    new = [status(number, "read") for number in range(497)]
    batch = body_of(change(messages=[*both, 7, {}]), change(statuses=[*new, {"id": "a"}]))
    assert from_meta(stack, batch).status == 200
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: from_meta(stack, batch), range(5)))
    assert {answer.status for answer in answers} == {200}
    stack.wait_until_idle()
    stats = stack.stats()
    assert stats["events"]["total"] == 997
    assert stats["deliveries"]["rejected"] == 6 * 3
    assert stats["deliveries"]["duplicates"] == 6 * 500 + 5 * 497
    assert stats["deliveries"]["conflicts"] == 0
    assert stack.value("SELECT count(*) FROM whatsapp_messages") == 500
    assert stack.value("SELECT count(*) FROM whatsapp_message_statuses") == 497


def test_their_addresses_are_checked_and_their_limits_are_theirs(stack: Stack) -> None:
    stack.receiver()
    query = f"hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token={TOKEN}"
    answer = request(stack.ports[0], "GET", f"/webhooks/whatsapp?{query}")
    assert (answer.status, answer.body) == (200, b"1158201444")
    assert answer.headers["content-type"].startswith("text/plain")
    assert request(stack.ports[0], "GET", f"/webhooks/whatsapp?{query}x").status == 401
    largest = body_of(change(messages=[text(1)])).ljust(3 * 1024 * 1024)
    assert from_meta(stack, largest).status == 200
    assert from_meta(stack, largest + b" ").status == 413
    body = b'{"event":"endpoint.url_validation","payload":{"plainToken":"abc"}}'
    assert post(stack, "zoom", body, {}).status == 401


def test_they_can_be_imitated(stack: Stack) -> None:
    stack.receiver()
    for slug, event_type in (("zoom", "meeting.ended"), ("twilio", "voice.completed")):
        url = f"http://127.0.0.1:{stack.ports[0]}/webhooks/{slug}"
        command = ("send", event_type, "--source", slug, "--url", url)
        stack.command(*command)
        assert "401" in stack.command(*command, "--forge")
    url = f"http://127.0.0.1:{stack.ports[0]}/webhooks/whatsapp"
    said = stack.command(
        *("simulate", "--source", "whatsapp", "--url", url, "--seed", "5"),
        *("--rate", "40", "--duration", "2", "--late", "0"),
    )
    sent, acknowledged = re.search(r"(\d+) events: (\d+) acknowledged, 0 refused", said).groups()  # type: ignore[union-attr]
    assert sent == acknowledged
    assert stack.value("SELECT count(*) FROM deliveries") > int(sent)  # some were batches


def test_without_their_secrets_they_are_not_there(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.receiver()
    for slug in ("whatsapp", "twilio", "zoom"):
        assert post(stack, slug, b"{}", {}).status == 404
        assert request(stack.ports[0], "GET", f"/webhooks/{slug}?hub.mode=subscribe").status == 405
    sentence = stack.command("send", "messages.text", "--source", "whatsapp", ok=False)
    assert "No secret to sign with: set INGEST_WHATSAPP_SECRETS." in sentence
    del stack.environment["INGEST_AWALCHAT_SECRETS"]
    sentence = stack.command("serve", "--port", "1", ok=False)
    assert "No webhook secret: set INGEST_AWALCHAT_SECRETS (newest first" in sentence
    assert sentence.count("INGEST_") == 1
