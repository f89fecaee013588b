"""Dead letters at a stand-in for Sentry: what failed where, and nothing of what it failed on."""

import gzip
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ingest.store.reports import failures
from tests.acceptance import traced_processors
from tests.acceptance.harness import Stack
from tests.support import http_taker
from tests.support.deliver import order
from tests.support.http_taker import Taker
from tests.support.rows import execute
from tests.support.waiting import end, until

MakeStack = Callable[..., Stack]
PHONE = "966512345678"
SENT = {
    *("event_id", "timestamp", "level", "logger", "platform", "release", "environment", "sdk"),
    *("fingerprint", "exception", "tags", "contexts"),
}


def envelopes(taker: Taker) -> list[bytes]:
    """Every envelope that arrived, readable."""
    return [
        gzip.decompress(content) if headers.get("content-encoding") == "gzip" else content
        for headers, content in list(taker.taken)
    ]


def reported(taker: Taker) -> list[dict[str, Any]]:
    """The events in them: an envelope is lines of JSON, of which the third is the event."""
    return [json.loads(content.split(b"\n")[2]) for content in envelopes(taker)]


def test_a_dead_letter_is_told_once_without_a_byte_of_its_event(make_stack: MakeStack) -> None:
    stack = make_stack(processors="traced_processors", read_model="false")
    shutil.copy(traced_processors.__file__, stack.folder)
    execute(stack.engine, "CREATE TABLE effects (what text, event text)")
    (stack.folder / "broken").touch()
    with http_taker.running() as taker:
        stack.environment["INGEST_SENTRY_DSN"] = f"http://key@127.0.0.1:{taker.server_port}/1"
        stack.receiver()
        worker = stack.worker(concurrency="1")
        stack.relay()
        stack.post(order(1, phone=PHONE))
        stack.wait_until_idle()
        (made,) = until(lambda: reported(taker), what="the dead letter is told")
        stack.post(order(2, phone=PHONE))
        stack.wait_until_idle()
        assert end(worker) == 0
        arrived = b"".join(envelopes(taker))
        told = reported(taker)
    dead = stack.query("SELECT id FROM jobs WHERE state = 'dead' ORDER BY id")
    assert len(dead) == 2
    assert len(told) == 1  # of one group within a minute, although each job had three attempts
    assert set(made) <= SENT
    (error,) = made["exception"]["values"]
    assert (error["type"], error["value"]) == ("ValueError", "")
    assert error["stacktrace"]["frames"][-1]["function"] == "records"
    assert all("vars" not in frame for frame in error["stacktrace"]["frames"])
    assert made["tags"] == {
        "processor": "records",
        "event_type": "order.created",
        "outcome": "failed",
    }
    assert made["contexts"] == {"job": {"job_id": dead[0]["id"], "attempt": 3, "left_out": 0}}
    with stack.engine.begin() as connection:
        (group,) = failures.groups(connection, now=datetime.now(UTC)).groups
    assert made["fingerprint"] == [group.processor, group.error_type, group.place]
    for forbidden in (PHONE, "order_id", "cannot call", "INSERT", "phone", "raise ValueError"):
        assert forbidden.encode() not in arrived, forbidden
