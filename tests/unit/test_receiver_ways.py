"""A request that comes whole and one that comes in pieces get the same answer."""

import asyncio
import json
import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from ingest.app import Application
from ingest.errors import StorageUnavailable
from ingest.receiver import Limits, Receiver
from ingest.sources.awalchat import AwalChat
from ingest.store.deliveries import Delivery
from ingest.tally import Tally
from tests.support.serving import serving
from tests.support.signing import SECRET, signed_headers

LIMITS = Limits(
    body_bytes=1_000,
    partial_bytes=10_000,
    waiting_bytes=10_000,
    body_deadline_s=5,
    retry_after_s=7,
)
EVENT = b'{"event":"order.created","timestamp":"2026-01-20T10:30:00Z","data":{"order_id":5}}'
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


def application(writer: Writer, tally: Tally) -> Application:
    endpoint = Receiver(
        {"awalchat": AwalChat([SECRET], tolerance_s=300)},
        writer,  # type: ignore[arg-type]  # as much of one as is needed
        LIMITS,
        clock=time.time,
        random=os.urandom,
        tally=tally,
    )
    app = Starlette(routes=[Route("/webhooks/{source}", endpoint, methods=["POST"])])

    def take(*given: Any) -> bool:
        return endpoint.take("awalchat", *given)

    return Application(app, {b"/webhooks/awalchat": take})


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
}


@pytest.mark.parametrize("name", CASES)
def test_both_ways_answer_alike(name: str) -> None:
    body, sign, fails, status = CASES[name]
    writer, tally = Writer(fails), Tally()

    async def ask(*pieces: bytes) -> tuple[str, dict[str, str], dict[str, Any]]:
        async with serving(application(writer, tally)) as (reader, connection):
            for piece in pieces:
                connection.write(piece)
                await connection.drain()
                await asyncio.sleep(0.02)  # so that what is missing is waited for the long way
            return await answer(reader)

    async def run() -> None:
        head, rest = post(body, sign(body))
        whole = await ask(head + rest)
        assert whole == await ask(head, rest)
        assert whole[0].startswith(f"HTTP/1.1 {status}")

    asyncio.run(run())
    assert writer.kept == ([body] * 2 if name in ("good", "no JSON") else [])  # rejected, but kept
    assert sum(tally._answers.values()) == (2 if name == "good" else 0)  # anybody shakes hands
    assert sum(tally._refused.values()) == (0 if status in ("200 OK", "500") else 2)


def test_a_bug_while_answering_hangs_up(monkeypatch: pytest.MonkeyPatch) -> None:
    tally = Tally()

    def broken(_seconds: float) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(tally, "answered", broken)

    async def run() -> None:
        async with serving(application(Writer(), tally)) as (reader, connection):
            connection.write(b"".join(post(EVENT, signed_headers(EVENT))))
            assert await asyncio.wait_for(reader.read(), 10) == b""

    asyncio.run(run())
