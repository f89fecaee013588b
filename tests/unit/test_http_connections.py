"""The HTTP server over real sockets: whole bodies, answers in one piece, idle connections."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from ingest import http
from ingest.http import WHOLE, BoundedHttp, Whole

Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def serving(
    app: Application,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a server of `app`."""
    config = uvicorn.Config(app, http=BoundedHttp, log_config=None, access_log=False)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: BoundedHttp(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()
        server.close()


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a whole body with itself, in one piece where that is possible."""
    whole: Whole = scope["extensions"][WHOLE]
    body = whole.body()
    if body is None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nx-way: short\r\n" % len(body)
    if not whole.answer(head, body):
        length = str(len(body)).encode()
        headers = [(b"content-length", length), (b"x-way", b"long")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def post(body: bytes, *more: bytes) -> bytes:
    return b"\r\n".join(
        (b"POST / HTTP/1.1", b"Host: x", b"Content-Length: %d" % len(body), *more, b"", body)
    )


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The next answer: which way it took, and its body."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    return fields[b"x-way"], await reader.readexactly(int(fields[b"content-length"]))


def test_pipelined_requests_are_answered_in_their_order() -> None:
    async def run() -> None:
        async with serving(echo) as (reader, writer):
            writer.write(b"".join(post(b"%d" % number) for number in range(20)))
            answers = [await answer(reader) for _ in range(20)]
            assert answers == [(b"short", b"%d" % number) for number in range(20)]

    asyncio.run(run())


def test_a_connection_that_is_to_be_closed_is_closed_after_its_answer() -> None:
    async def run() -> None:
        async with serving(echo) as (reader, writer):
            writer.write(post(b"last", b"Connection: close"))
            assert await answer(reader) == (b"long", b"last")
            assert await asyncio.wait_for(reader.read(), 10) == b""

    asyncio.run(run())


def test_a_body_that_comes_later_is_waited_for() -> None:
    async def run() -> None:
        async with serving(echo) as (reader, writer):
            request = post(b"in two parts")
            writer.write(request[:-5])
            await writer.drain()
            await asyncio.sleep(0.05)  # so that it is read in two parts
            writer.write(request[-5:])
            assert await answer(reader) == (b"short", b"in two parts")

    asyncio.run(run())


def test_an_idle_connection_is_closed_and_one_that_waits_for_its_answer_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "HEAD_DEADLINE_S", 0.1)
    monkeypatch.setattr(http, "IDLE_LIMIT_S", 0.1)

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.6)
        await echo(scope, receive, send)

    async def run() -> None:
        async with serving(slow) as (reader, writer):
            writer.write(post(b"waits"))
            assert await answer(reader) == (b"short", b"waits")
            assert await asyncio.wait_for(reader.read(), 10) == b""

    asyncio.run(run())


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers without a look at the body, as the receiver does for an unknown source."""
    await send(
        {"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]}
    )
    await send({"type": "http.response.body", "body": b""})


async def refused(reader: asyncio.StreamReader) -> None:
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert head.startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize(
    "begun",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n1",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n",
    ],
    ids=["one byte of ten", "none, as it was not told to continue"],
)
def test_a_connection_is_idle_whose_request_was_answered_before_its_body_came(
    begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "HEAD_DEADLINE_S", 0.1)
    monkeypatch.setattr(http, "IDLE_LIMIT_S", 0.3)

    async def run() -> None:
        async with serving(not_found) as (reader, writer):
            began = time.monotonic()
            writer.write(begun)
            await refused(reader)
            assert await asyncio.wait_for(reader.read(), 10) == b""
            assert time.monotonic() - began >= 0.3

    asyncio.run(run())


def test_a_body_may_still_come_after_its_answer_and_another_request_after_it() -> None:
    async def run() -> None:
        async with serving(not_found) as (reader, writer):
            request = post(b"in two parts")
            writer.write(request[:-5])
            await refused(reader)
            writer.write(request[-5:] + request)
            await refused(reader)

    asyncio.run(run())
