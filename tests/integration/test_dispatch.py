"""Hints on a real Redis: by queue name, by ids, and never in anybody's way."""

import base64
import json
import logging
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from ingest.dispatch import BackgroundDispatcher, Dispatcher
from ingest.errors import DispatchFailed
from ingest.redis_address import parse_redis
from tests.support.redis_client import connect
from tests.support.waiting import until

NOWHERE = "redis://127.0.0.1:1/0"


def messages(redis_url: str, queue: str) -> list[Any]:
    with connect(redis_url) as client:
        return [json.loads(each) for each in client.lrange(f"ingest:{queue}", 0, -1)]


def arguments(message: Any) -> Any:
    return json.loads(base64.b64decode(message["body"]))[0]


def test_a_message_holds_ids_and_nothing_else(redis_url: str) -> None:
    dispatcher = Dispatcher(parse_redis(redis_url))
    deliveries = [uuid4(), uuid4()]
    dispatcher.dispatch("events", deliveries=deliveries, jobs=[7, 8])
    (message,) = messages(redis_url, "events")
    assert arguments(message) == [[each.hex for each in deliveries], [7, 8]]
    assert message["headers"]["task"] == "ingest.process"
    assert message["headers"]["eta"] is None
    assert message["headers"]["argsrepr"] == "(2 deliveries, 2 jobs)"
    assert dispatcher.backlog("events") == 1
    dispatcher.close()


def test_an_id_that_waits_takes_60_bytes_of_redis_at_most(redis_url: str) -> None:
    """The arithmetic of docs/capacity.py rests on it: 54 B were measured."""
    dispatcher = Dispatcher(parse_redis(redis_url))
    with connect(redis_url) as client:
        dispatcher.dispatch("events", deliveries=[uuid4()])
        before = client.info("memory")["used_memory"]
        for _ in range(100):
            dispatcher.dispatch("events", deliveries=[uuid4() for _ in range(200)])
        taken = client.info("memory")["used_memory"] - before
    assert 45 < taken / 20_000 < 60
    dispatcher.close()


def test_after_a_flush_messages_arrive_as_before(redis_url: str) -> None:
    dispatcher = Dispatcher(parse_redis(redis_url))
    dispatcher.dispatch("events", jobs=[1])
    with connect(redis_url) as client:
        client.flushall()
    dispatcher.dispatch("events", jobs=[2])
    assert [arguments(each) for each in messages(redis_url, "events")] == [[[], [2]]]
    dispatcher.close()


def test_without_redis_it_says_so_soon() -> None:
    dispatcher = Dispatcher(parse_redis(NOWHERE))
    began = time.monotonic()
    with pytest.raises(DispatchFailed):
        dispatcher.dispatch("events", jobs=[1])
    with pytest.raises(DispatchFailed):
        dispatcher.backlog("events")
    assert time.monotonic() - began < 100
    dispatcher.close()


def test_the_thread_coalesces_what_comes_in_quick_succession(redis_url: str) -> None:
    thread = BackgroundDispatcher(Dispatcher(parse_redis(redis_url)))
    ids = [uuid4() for _ in range(500)]
    for each in ids:
        thread.hint([each])
    thread.start()
    until(lambda: len(messages(redis_url, "events")) >= 3, what="all are sent")
    sent = [each for message in messages(redis_url, "events") for each in arguments(message)[0]]
    assert sorted(sent) == sorted(each.hex for each in ids)
    thread.close(timeout_s=300)


def test_hinting_never_blocks_and_never_raises_without_redis(
    caplog: pytest.LogCaptureFixture,
) -> None:
    thread = BackgroundDispatcher(Dispatcher(parse_redis(NOWHERE)))
    thread.start()
    ids = [uuid4() for _ in range(100)]
    began = time.monotonic()
    for _ in range(1_000):
        thread.hint(ids)
    assert time.monotonic() - began < 100
    until(lambda: thread.failing, what="the failure is noticed")
    thread.close(timeout_s=300)


def test_closing_sends_what_waits(redis_url: str) -> None:
    thread = BackgroundDispatcher(Dispatcher(parse_redis(redis_url)))
    thread.start()
    thread.hint([uuid4()])
    thread.close(timeout_s=300)
    assert len(messages(redis_url, "events")) == 1


@pytest.mark.parametrize(
    ("given", "for_kombu"),
    [
        ("redis://host:6379/3", "redis://host:6379/3"),
        (
            "unix://:p%2Fw@/run/redis.sock?db=2",
            "redis+socket://:p%2Fw@/run/redis.sock?virtual_host=2",
        ),
        ("unix:///run/a%20b.sock", "redis+socket:///run/a%20b.sock?virtual_host=0"),
    ],
)
def test_kombu_has_its_own_spelling_of_sockets(given: str, for_kombu: str) -> None:
    assert parse_redis(given).broker_url == for_kombu


def test_nothing_of_a_message_is_logged(
    redis_url: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with caplog.at_level(logging.DEBUG):
        dispatcher = Dispatcher(parse_redis(redis_url))
        delivery = uuid4()
        dispatcher.dispatch("events", deliveries=[delivery])
        dispatcher.close()
    assert delivery.hex not in caplog.text
