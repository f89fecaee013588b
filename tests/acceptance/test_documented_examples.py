"""The documented examples, signed by something that is not ours, in the read model field by
field."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from tests.acceptance.harness import Stack, request
from tests.support.signing import SECRET
from tests.support.vectors import DOCUMENTED

Signer = Callable[[str, bytes], str]

WAMID = "wamid.HBgMOTY2NTAwMDAwMDAwFQIAERgS..."


def by_node(timestamp: str, body: bytes) -> str:
    script = (
        "const chunks=[];process.stdin.on('data',c=>chunks.push(c));process.stdin.on('end',()=>{"
        "const h=require('crypto').createHmac('sha256',process.argv[1]);"
        "h.update(process.argv[2]+'.');h.update(Buffer.concat(chunks));"
        "process.stdout.write(h.digest('hex'))})"
    )
    return subprocess.run(
        ["node", "-e", script, SECRET, timestamp], input=body, capture_output=True, check=True
    ).stdout.decode()


def by_openssl(timestamp: str, body: bytes) -> str:
    printed = subprocess.run(
        ["openssl", "dgst", "-sha256", "-hmac", SECRET],
        input=timestamp.encode() + b"." + body,
        capture_output=True,
        check=True,
    ).stdout.decode()
    return printed.split()[-1]


@pytest.fixture(params=["node", "openssl"])
def signer(request: pytest.FixtureRequest) -> Signer:
    """A signer of somebody else's; skipped where it is not installed, but not in CI."""
    tool: str = request.param
    if shutil.which(tool) is None and not os.environ.get("CI"):
        pytest.skip(f"{tool} is not installed")
    return {"node": by_node, "openssl": by_openssl}[tool]


def at(hour: int, minute: int) -> datetime:
    return datetime(2024, 1, 20, hour, minute, tzinfo=UTC)


def test_they_are_answered_200_and_found_field_by_field(
    make_stack: Callable[..., Stack], signer: Signer
) -> None:
    stack = make_stack()
    stack.receiver()
    stack.worker()

    def post(body: bytes) -> None:
        timestamp = str(int(time.time()))
        answer = request(
            stack.ports[0],
            "POST",
            "/webhooks/awalchat",
            body,
            {
                "Content-Type": "application/json",
                "X-Awal-Webhook-Timestamp": timestamp,
                "X-Awal-Webhook-Signature": signer(timestamp, body),
            },
        )
        assert (answer.status, answer.json) == (200, {"received": True})

    for body in DOCUMENTED:
        post(body)
    stack.wait_until_idle()
    check_read_model(stack)
    once = tables(stack)
    stats = stack.stats()
    assert stats.pop("backlog")["total"] == 0
    assert stats == {
        "deliveries": {"accepted": 6, "rejected": 0, "duplicates": 0, "conflicts": 0},
        "events": {"total": 6, "unhandled": 0},
        "jobs": {"pending": 0, "running": 0, "retrying": 0, "succeeded": 6, "dead": 0},
    }
    for body in reversed(DOCUMENTED):
        post(body)
    stack.wait_until_idle()
    assert tables(stack) == once
    again = stack.stats()
    assert again["deliveries"] == {
        "accepted": 12,
        "rejected": 0,
        "duplicates": 6,
        "conflicts": 0,
    }
    assert again["events"]["total"] == again["jobs"]["succeeded"] == 6


def check_read_model(stack: Stack) -> None:
    (message,) = without(stack.query("SELECT * FROM messages"))
    assert message == {
        "message_id": WAMID,
        "conversation_id": 123,
        "from_number": "96650000000",
        "to_number": "96650000001",
        "type": "text",
        "body": "Hello, I need help",
        "timestamp": at(10, 30),
        "status": "delivered",
        "status_at": at(10, 31),
        "last_event_at": at(10, 31),
        "last_event_id": f"message.status.updated:{WAMID}:delivered",
    }
    (conversation,) = without(stack.query("SELECT * FROM conversations"))
    assert conversation.pop("last_event_id").startswith("conversation.updated:")
    assert conversation == {
        "conversation_id": 123,
        "contact_id": 456,
        "phone_number": "96650000000",
        "created_at": at(10, 30),
        "status": "active",
        "updated_at": at(10, 35),
        "last_event_at": at(10, 35),
    }
    (order,) = without(stack.query("SELECT * FROM orders"))
    assert order.pop("last_event_id").startswith("order.status.updated:")
    assert str(order["total"]) == "1250.00"
    assert order == {
        "order_id": 789,
        "conversation_id": 123,
        "total": Decimal("1250.00"),
        "currency": "SAR",
        "created_at": at(11, 0),
        "status": "accepted",
        "updated_at": at(11, 30),
        "last_event_at": at(11, 30),
    }
    (change,) = stack.query(
        "SELECT order_id, old_status, new_status, updated_at FROM order_status_changes"
    )
    assert change == {
        "order_id": 789,
        "old_status": "pending",
        "new_status": "accepted",
        "updated_at": at(11, 30),
    }


def without(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows without the columns that serve merging and searching."""
    inner = {"received_event_id", "status_event_id", "created_event_id", "updated_event_id"}
    inner |= {"versions", "sent_at", "from_number_normal", "phone_number_normal", "phone_normal"}
    return [{name: value for name, value in row.items() if name not in inner} for row in rows]


def tables(stack: Stack) -> dict[str, list[dict[str, Any]]]:
    names = ("messages", "conversations", "orders", "order_status_changes", "contacts")
    return {name: stack.query(f"SELECT * FROM {name} ORDER BY 1") for name in names}


def test_send_posts_the_documented_bodies_byte_for_byte(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.receiver()
    url = f"http://127.0.0.1:{stack.ports[0]}/webhooks/awalchat"
    stack.command("send", "--documented", "--url", url)
    stored = [bytes(row["body"]) for row in stack.query("SELECT body FROM deliveries")]
    assert sorted(stored) == sorted(DOCUMENTED)


def test_what_the_commands_show_of_an_event(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.receiver()
    stack.worker()
    stack.post(DOCUMENTED[4])
    stack.wait_until_idle()
    (listed,) = map(json.loads, stack.command("events", "list", "--json").splitlines())
    assert set(listed) == {
        "id",
        "source",
        "event_id",
        "type",
        "state",
        "received_at",
        "deliveries",
        "title",
        "about",
    }
    assert listed["title"].startswith("Order 789 created")
    assert (listed["event_id"], listed["state"], listed["deliveries"]) == (
        "order.created:789",
        "succeeded",
        1,
    )
    for name in (listed["id"], "order.created:789"):
        shown = stack.show(name)
        assert shown["body"].encode() == DOCUMENTED[4]
        assert shown["headers"]["content-type"] == "application/json"
        (job,) = shown["jobs"]
        assert (job["processor"], job["state"]) == ("orders", "succeeded")
        (attempt,) = job["attempts"]
        assert (attempt["number"], attempt["trigger"], attempt["outcome"]) == (
            1,
            "delivery",
            "succeeded",
        )
