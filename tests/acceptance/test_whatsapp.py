"""WhatsApp's read model and its searches, through real processes."""

from collections import Counter
from collections.abc import Callable

import pytest

from tests.acceptance.harness import Answer, Stack, request
from tests.acceptance.test_plugin import listed
from tests.support.meta import APP_SECRET, TOKEN, body_of, change, signature, status
from tests.support.waiting import until


@pytest.fixture
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack(whatsapp_secrets=APP_SECRET, whatsapp_verify_token=TOKEN)


def post(stack: Stack, body: bytes) -> Answer:
    headers = {"X-Hub-Signature-256": signature(body).decode()}
    return request(stack.ports[0], "POST", "/webhooks/whatsapp", body, headers)


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
