"""Meta's WhatsApp Cloud API, from the request to the read model, through real processes."""

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.acceptance.harness import Answer, Stack, request
from tests.acceptance.test_plugin import listed
from tests.support.meta import APP_SECRET, TOKEN, body_of, change, signature, status, text
from tests.support.waiting import until


@pytest.fixture
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack(whatsapp_secrets=APP_SECRET, whatsapp_verify_token=TOKEN)


def post(stack: Stack, body: bytes) -> Answer:
    headers = {"X-Hub-Signature-256": signature(body).decode()}
    return request(stack.ports[0], "POST", "/webhooks/whatsapp", body, headers)


def batch(messages: list[Any]) -> bytes:
    return body_of(change(messages=messages))


def test_the_address_is_verified_as_meta_does_it(stack: Stack) -> None:
    stack.receiver()
    query = "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token="
    answer = request(stack.ports[0], "GET", f"/webhooks/whatsapp?{query}{TOKEN}")
    assert (answer.status, answer.body) == (200, b"1158201444")
    assert answer.headers["content-type"].startswith("text/plain")
    refused = request(stack.ports[0], "GET", f"/webhooks/whatsapp?{query}another_token_01234567")
    assert refused.status == 401


def test_a_thousand_updates_of_which_half_are_known_and_three_broken(
    stack: Stack, record_property: Callable[[str, object], None]
) -> None:
    """Five such requests at once make each event once; each is answered 200."""
    stack.receiver()
    stack.worker()
    stack.relay()
    assert post(stack, batch([text(number) for number in range(500)])).status == 200
    until(lambda: stack.stats()["events"]["total"] == 500, what="the first half is admitted")
    broken = [{"type": "text"}, "no object", None]
    body = batch([*map(text, range(500)), *broken, *map(text, range(500, 997))])
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: post(stack, body), range(5)))
    assert [answer.status for answer in answers] == [200] * 5
    stack.wait_until_idle()
    stats = stack.stats()
    assert stats["events"]["total"] == 997
    assert stats["deliveries"]["rejected"] == 5 * 3
    assert stats["deliveries"]["duplicates"] == 5 * 500 + 4 * 497
    assert stack.value("SELECT count(*) FROM whatsapp_messages") == 997
    began = time.monotonic()
    assert post(stack, body).status == 200
    record_property("answer_s", round(time.monotonic() - began, 3))
    stack.wait_until_idle()
    assert stack.stats()["events"]["total"] == 997
    assert stack.value("SELECT count(*) FROM whatsapp_messages") == 997


def test_statuses_that_come_before_their_message_and_backward_end_as_they_should(
    stack: Stack,
) -> None:
    stack.receiver()
    stack.worker()
    stack.relay()
    for state in ("read", "sent", "delivered"):
        assert post(stack, body_of(change(statuses=[status(1, state)]))).status == 200
    assert post(stack, body_of(change(statuses=[status(2, "failed")]))).status == 200
    until(lambda: stack.stats()["events"]["total"] == 4, what="the statuses are admitted")
    stack.wait_until_idle()
    states = stack.query("SELECT message_id, status FROM whatsapp_messages ORDER BY 1")
    assert [(row["message_id"], row["status"]) for row in states] == [
        ("wamid.1", "read"),
        ("wamid.2", "failed"),
    ]
    found = [event["event_id"] for event in listed(stack, "--query", "message:wamid.1")]
    assert found == [f"statuses:wamid.1:{state}" for state in ("delivered", "sent", "read")]
    of_person = listed(stack, "--query", 'phone:"+966 50 000 0002"')
    assert [event["event_id"] for event in of_person] == ["statuses:wamid.2:failed"]
    history = stack.query("SELECT message_id, status FROM whatsapp_message_statuses")
    assert Counter(row["message_id"] for row in history) == {"wamid.1": 3, "wamid.2": 1}


def test_its_samples_are_sent_and_simulated(stack: Stack) -> None:
    stack.receiver()
    stack.worker()
    stack.relay()
    url = f"http://127.0.0.1:{stack.ports[0]}/webhooks/whatsapp"
    stack.command("send", "messages.text", "--source", "whatsapp", "--url", url)
    simulate = ("simulate", "--source", "whatsapp", "--url", url, "--duration", "2", "--rate", "50")
    stack.command(*simulate, "--time-factor", "1000")
    until(lambda: stack.stats()["events"]["total"] > 1, what="the events are admitted")
    stack.wait_until_idle()
    assert stack.stats()["jobs"]["dead"] == 0
    assert stack.value("SELECT count(*) FROM whatsapp_messages") > 1
