"""The simulated shop keeps to the protocol, and its sender to the documented retries."""

import asyncio
import io
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from aiohttp import web

from ingest.simulation.policy import SenderRetries
from ingest.simulation.sender import Journal, Sender, TrafficProfile
from ingest.sources.awalchat import samples
from ingest.sources.awalchat.shop import Occurrence, Shop
from ingest.sources.awalchat.source import AwalChat
from tests.support.signing import SECRET, signed_headers
from tests.support.sources import awalchat

OPENED = datetime(2024, 1, 20, tzinfo=UTC)
STEPS = ["pending", "accepted", "shipped", "delivered", "completed"]


def happened(count: int, seed: int = 7) -> list[Occurrence]:
    shop = Shop(Random(seed), opened_at=OPENED)
    return list(itertools.islice(shop.occurrences(), count))


def test_the_same_seed_opens_the_same_shop_and_another_shares_nothing_with_it() -> None:
    assert happened(300) == happened(300)
    ids = [{json.dumps(each.data) for each in happened(300, seed)} for seed in (1, 2)]
    assert not ids[0] & ids[1]


def test_everything_that_is_documented_happens_at_the_shop() -> None:
    assert {each.type for each in happened(3_000)} == set(samples.types())


def test_an_order_moves_through_its_states_one_after_another() -> None:
    states: dict[int, str] = {}
    for each in happened(5_000):
        if each.type == "order.created":
            states[each.data["order_id"]] = each.data["status"]
        if each.type == "order.status.updated":
            order = each.data["order_id"]
            assert states[order] == each.data["old_status"]
            assert STEPS.index(each.data["new_status"]) == STEPS.index(states[order]) + 1
            states[order] = each.data["new_status"]
    assert "completed" in states.values()


def test_what_happens_to_one_entity_happens_at_different_times() -> None:
    times: dict[int, list[str]] = {}
    for each in happened(3_000):
        if each.type == "conversation.updated":
            times.setdefault(each.data["conversation_id"], []).append(each.timestamp)
    assert max(map(len, times.values())) > 1
    assert all(found == sorted(set(found)) for found in times.values())


def test_the_waits_are_the_documented_ones() -> None:
    policy = SenderRetries(AwalChat.retries)
    minutes = [(policy.wait_s(failed) or 0) / 60 for failed in range(1, 6)]
    assert minutes == [1, 5, 15, 60, 360]
    assert policy.wait_s(6) is None
    assert SenderRetries(AwalChat.retries, time_factor=60).wait_s(1) == 1


@pytest.mark.parametrize(
    ("status", "final"),
    [(200, True), (400, True), (401, True), (413, True), (500, False), (503, False)],
)
def test_what_the_sender_takes_for_the_last_word(status: int, final: bool) -> None:
    assert SenderRetries(AwalChat.retries).is_final(status) is final


Answer = Callable[[int], int]


@asynccontextmanager
async def answering(answer: Answer, bodies: list[bytes]) -> AsyncIterator[str]:
    """A receiver that answers the n-th request with what `answer` says."""

    async def receive(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        stamp = int(request.headers["X-Awal-Webhook-Timestamp"])
        expected = signed_headers(bodies[-1], timestamp=stamp)
        given = request.headers["X-Awal-Webhook-Signature"]
        assert given == expected["X-Awal-Webhook-Signature"]
        return web.Response(status=answer(len(bodies)))

    app = web.Application()
    app.router.add_post("/hook", receive)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    try:
        yield f"http://127.0.0.1:{port}/hook"
    finally:
        await runner.cleanup()


def send(
    answer: Answer, count: int = 1, **manners: Any
) -> tuple[Sender, list[bytes], list[dict[str, Any]]]:
    """Send what happens, time passing a hundred thousand times as fast."""
    bodies: list[bytes] = []
    stream = io.StringIO()

    async def scenario() -> Sender:
        async with answering(answer, bodies) as url:
            sender = Sender(
                url,
                awalchat(SECRET),
                manners=TrafficProfile(rate=1_000, connections=4, **manners),
                policy=SenderRetries(AwalChat.retries, time_factor=100_000),
                random=Random(3),
                journal=Journal(stream, clock=lambda: 0.0),
            )
            shop = Shop(Random(1), opened_at=OPENED)
            await sender.run(shop.occurrences(), duration_s=(count - 0.5) / 1_000)
            return sender

    sender = asyncio.run(scenario())
    return sender, bodies, [json.loads(line) for line in stream.getvalue().splitlines()]


def test_what_is_answered_503_is_sent_again_until_it_is_taken() -> None:
    sender, bodies, journal = send(lambda number: 503 if number < 4 else 200)
    assert [line["answer"] for line in journal] == ["503", "503", "503", "200"]
    assert [line["try"] for line in journal] == [1, 2, 3, 4]
    assert len({json.dumps(json.loads(body)["data"]) for body in bodies}) == 1
    assert (sender.tally.acknowledged, sender.tally.waiting) == (1, 0)


def test_after_five_failed_retries_it_is_given_up() -> None:
    sender, bodies, _ = send(lambda _: 500)
    assert len(bodies) == 6
    assert (sender.tally.given_up, sender.tally.acknowledged) == (1, 0)


@pytest.mark.parametrize("status", [400, 401])
def test_a_4xx_is_never_sent_again(status: int) -> None:
    sender, bodies, _ = send(lambda _: status)
    assert len(bodies) == 1
    assert sender.tally.refused == 1


def test_an_address_that_names_no_host_is_told_as_one() -> None:
    async def scenario() -> Sender:
        sender = Sender(
            "http://example..com/hook",
            awalchat(SECRET),
            manners=TrafficProfile(rate=1_000, connections=1),
            policy=SenderRetries(AwalChat.retries, time_factor=100_000),
            random=Random(3),
            journal=Journal(io.StringIO(), clock=lambda: 0.0),
        )
        await sender.run(Shop(Random(1), opened_at=OPENED).occurrences(), duration_s=0.0005)
        return sender

    assert set(asyncio.run(scenario()).tally.answers) == {"unresolved"}


def test_duplicates_are_the_same_bytes_and_one_occurrence() -> None:
    sender, bodies, journal = send(lambda _: 200, count=20, duplicates=1.0, late_up_to_s=0.01)
    assert len(bodies) == 40
    assert len(set(bodies)) == 20
    assert sender.tally.acknowledged == sender.tally.occurrences == 20
    assert len({line["sha256"] for line in journal}) == 20


def test_what_is_late_arrives_after_what_happened_later() -> None:
    _, _, journal = send(lambda _: 200, count=60, late=0.3, late_up_to_s=0.05)
    arrived = [line["occurrence"] for line in journal]
    assert sorted(arrived) == list(range(60))
    assert arrived != sorted(arrived)
