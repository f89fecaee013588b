"""A request that comes whole and one that comes in pieces get the same answer."""

import asyncio
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.routing import Route

from ingest.errors import StorageUnavailable
from ingest.monitoring.catalogue import ANSWER_DURATION, REFUSALS, Metric
from ingest.monitoring.samples import Distribution
from ingest.receiver.body import BodyLimits, BodyReader
from ingest.receiver.endpoint import Endpoint
from ingest.receiver.fastpath import FastPath
from ingest.receiver.identifier_process import Namer
from ingest.receiver.intake import Intake
from ingest.receiver.metrics import ReceiverMetrics
from ingest.receiver.refused import RefusedRequests
from ingest.sources.awalchat.source import AwalChat
from ingest.sources.base import SourceSettings
from ingest.store.pipeline.deliveries import Delivery
from tests.support.serving import serving
from tests.support.signing import SECRET, signed_headers
from tests.support.sources import awalchat

EVENT = b'{"event":"order.created","timestamp":"2026-01-20T10:30:00Z","data":{"order_id":5}}'
REFUSED = "HTTP/1.1 401 Unauthorized"
CHALLENGE = b'{"type":"verification","challenge":"x"}'


class Writer:
    """Commits, or fails as it is told."""

    def __init__(self, fails: str | None = None) -> None:
        self.fails = fails
        self.kept: list[bytes] = []

    def submit(self, delivery: Delivery) -> asyncio.Future[None]:
        if self.fails == "at once":
            raise StorageUnavailable("Too many deliveries wait already.", reason="backlog_full")
        committed = asyncio.get_running_loop().create_future()
        if self.fails == "later":
            lost = StorageUnavailable("The flush failed.", reason="flush_failed")
            committed.set_exception(lost)
        elif self.fails == "oddly":
            committed.set_exception(RuntimeError("a bug"))
        else:
            committed.set_result(None)
            self.kept.append(delivery.body)
        return committed

    async def append(self, delivery: Delivery) -> None:
        await self.submit(delivery)


class BrokenSource(AwalChat):
    """Has a bug."""

    def parse(self, body: bytes) -> Any:
        raise RuntimeError("a bug")


@dataclass
class Receiving:
    """An intake, and the two ways into it."""

    writer: Writer
    source: AwalChat = field(default_factory=lambda: awalchat(SECRET))
    metrics: ReceiverMetrics = field(default_factory=ReceiverMetrics)

    def __post_init__(self) -> None:
        self.sources = {"awalchat": self.source}
        intake = Intake(
            self.sources,
            self.writer,  # type: ignore[arg-type]  # as much of one as is needed
            body_bytes=1_000,
            retry_after_s=7,
            clock=time.time,
            random=os.urandom,
            metrics=self.metrics,
            refused=RefusedRequests(self.metrics),
        )
        bodies = BodyReader(BodyLimits(body_bytes=1_000, partial_bytes=10_000, deadline_s=60))
        endpoint = Endpoint(intake, bodies, Namer(waiting_bytes=10_000))
        self.app = Starlette(routes=[Route("/webhooks/{source}", endpoint, methods=["POST"])])
        self.fast_path = FastPath(intake, "/webhooks/")


def post(body: bytes, headers: dict[str, str]) -> list[bytes]:
    """A request, its head and its body."""
    lines = [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join(
        ("POST /webhooks/awalchat HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *lines)
    )
    return [f"{head}\r\n\r\n".encode(), body]


async def answer(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], dict[str, Any]]:
    """Status line, headers and body, without what is each request's own."""
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode()
    status, *lines = head.strip().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    body = json.loads(await reader.readexactly(int(headers["content-length"])))
    assert len(headers.pop("x-request-id")) == 36
    headers.pop("date", None)
    body.pop("request_id", None)
    return status, headers, body


CASES: dict[str, tuple[bytes, Callable[[bytes], dict[str, str]], str | None, str]] = {
    "good": (EVENT, signed_headers, None, "200 OK"),
    "signed with another secret": (EVENT, lambda body: signed_headers(body + b" "), None, "401"),
    "signed long ago": (EVENT, lambda body: signed_headers(body, timestamp=1), None, "401"),
    "not signed": (EVENT, lambda _: {}, None, "401"),
    "half signed": (EVENT, lambda _: {"X-Awal-Webhook-Timestamp": "1"}, None, "401"),
    "no JSON": (b"{", signed_headers, None, "400"),
    "a handshake": (CHALLENGE, signed_headers, None, "200 OK"),
    "a handshake, not signed": (CHALLENGE, lambda _: {}, None, "200 OK"),
    "too large": (EVENT + b" " * 1_000, signed_headers, None, "413"),
    "nothing can wait": (EVENT, signed_headers, "at once", "503"),
    "not committed": (EVENT, signed_headers, "later", "503"),
    "a bug": (EVENT, signed_headers, "oddly", "500"),
    "a bug of the source": (EVENT, signed_headers, None, "500"),
}


@pytest.mark.parametrize("name", CASES)
def test_both_ways_answer_alike(name: str) -> None:
    """The endpoint alone, the endpoint after a first try of the fast path, and the fast path."""
    body, sign, fails, status = CASES[name]
    source = BrokenSource if name == "a bug of the source" else AwalChat
    receiving = Receiving(Writer(fails), source(SourceSettings(secrets=(SecretStr(SECRET),))))

    async def ask(*pieces: bytes, fast: bool = True) -> tuple[str, dict[str, str], dict[str, Any]]:
        fast_path = receiving.fast_path if fast else None
        async with serving(receiving.app, fast_path=fast_path) as (reader, connection):
            for piece in pieces:
                connection.write(piece)
                await connection.drain()
                await asyncio.sleep(0.02)  # so that what is missing is waited for by the endpoint
            return await answer(reader)

    async def run() -> None:
        head, rest = post(body, sign(body))
        whole = await ask(head + rest)
        assert whole == await ask(head, rest)
        assert whole == await ask(head + rest, fast=False)
        assert whole[0].startswith(f"HTTP/1.1 {status}")

    asyncio.run(run())
    kept = [body] * 3 if name in ("good", "no JSON") else []  # rejected, but kept
    assert receiving.writer.kept == kept
    assert counted(receiving, ANSWER_DURATION) == (3 if name == "good" else 0)  # no challenge
    assert counted(receiving, REFUSALS) == (0 if status in ("200 OK", "500") else 3)


def counted(receiving: Receiving, metric: Metric) -> float:
    values = [sample.value for sample in receiving.metrics.read() if sample.metric == metric]
    return sum(sum(value.counts) if isinstance(value, Distribution) else value for value in values)


@pytest.mark.parametrize("is_fast", [True, False])
def test_a_secret_that_is_replaced_is_the_one_that_verifies(is_fast: bool) -> None:
    """Both ways look a source up for each request: its secrets are read again while they serve."""
    receiving = Receiving(Writer())
    new = "whsec_the_next_one_0123456789"

    async def ask(secret: str) -> str:
        fast_path = receiving.fast_path if is_fast else None
        async with serving(receiving.app, fast_path=fast_path) as (reader, connection):
            connection.write(b"".join(post(EVENT, signed_headers(EVENT, secret=secret))))
            status, _headers, _body = await answer(reader)
            return status

    async def run() -> None:
        assert (await ask(SECRET), await ask(new)) == ("HTTP/1.1 200 OK", REFUSED)
        receiving.sources["awalchat"] = awalchat(new)
        assert (await ask(SECRET), await ask(new)) == (REFUSED, "HTTP/1.1 200 OK")

    asyncio.run(run())


def test_a_bug_while_answering_hangs_up(monkeypatch: pytest.MonkeyPatch) -> None:
    receiving = Receiving(Writer())

    def broken(_seconds: float, _source: str) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(receiving.metrics, "count_answer", broken)

    async def run() -> None:
        serve = serving(receiving.app, fast_path=receiving.fast_path)
        async with serve as (reader, connection):
            connection.write(b"".join(post(EVENT, signed_headers(EVENT))))
            assert await asyncio.wait_for(reader.read(), 10) == b""

    asyncio.run(run())


def test_the_fast_path_handles_deliveries_and_nothing_else() -> None:
    fast_path = Receiving(Writer()).fast_path
    assert fast_path.handler(b"POST", b"/webhooks/awalchat") is not None
    for method, target in (
        (b"GET", b"/webhooks/awalchat"),
        (b"POST", b"/webhooks/another"),
        (b"POST", b"/webhooks/awalchat?x=1"),
        (b"POST", b"/health/live"),
    ):
        assert fast_path.handler(method, target) is None
