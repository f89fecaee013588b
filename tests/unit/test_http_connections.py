"""The HTTP server over real sockets: whole bodies, answers in one piece, idle connections."""

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from starlette.types import Receive, Scope, Send

from ingest.receiver import server as http
from ingest.receiver.client_shares import Shares
from ingest.receiver.fastpath import FastPath, RawResponse, TryHandle
from ingest.receiver.server import BoundedHttp
from ingest.sources.base import Headers
from tests.support.serving import serving


class Echo(FastPath):
    """Answers a body with itself, and says which way it came."""

    def __init__(self, *, after_s: float = 0.0) -> None:
        self._after_s = after_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        await asyncio.sleep(self._after_s)
        length = str(len(body)).encode()
        headers = [(b"content-length", length), (b"x-way", b"asgi")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def handler(self, method: bytes, target: bytes) -> TryHandle | None:
        return self._handle if (method, target) == (b"POST", b"/") else None

    def _handle(self, headers: Headers, body: bytes, response: RawResponse) -> bool:
        if body == b"no":
            return False
        head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nx-way: fast\r\n" % len(body)
        loop = asyncio.get_running_loop()
        loop.call_later(self._after_s, response.send, head, body)
        return True


def echoing(
    served: list[BoundedHttp] | None = None,
    *,
    after_s: float = 0.0,
    keep_alive_s: int = 75,
    shares: Shares | None = None,
) -> AbstractAsyncContextManager[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to a server that echoes, by the fast path where it can."""
    echo = Echo(after_s=after_s)
    return serving(echo, served, keep_alive_s=keep_alive_s, shares=shares, fast_path=echo)


def post(body: bytes, *more: bytes, line: bytes = b"POST / HTTP/1.1") -> bytes:
    return b"\r\n".join((line, b"Host: x", b"Content-Length: %d" % len(body), *more, b"", body))


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The next answer: which way it took, and its body."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    return fields[b"x-way"], await reader.readexactly(int(fields[b"content-length"]))


@asynccontextmanager
async def connected(
    *, after_s: float = 0.0, keep_alive_s: int = 75
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, BoundedHttp]]:
    """A connection on which a request was answered already, and the server's end of it, for what
    must come within one turn of its loop."""
    served: list[BoundedHttp] = []
    async with echoing(served, after_s=after_s, keep_alive_s=keep_alive_s) as (reader, writer):
        writer.write(post(b"warm"))
        assert await answer(reader) == (b"fast", b"warm")
        yield reader, writer, served[0]


def test_pipelined_requests_are_answered_in_their_order() -> None:
    async def run() -> None:
        async with echoing() as (reader, writer):
            writer.write(b"".join(post(b"%d" % number) for number in range(20)))
            answers = [await answer(reader) for _ in range(20)]
            assert [body for _, body in answers] == [b"%d" % number for number in range(20)]
            assert {way for way, _ in answers[1:]} == {b"asgi"}  # each behind another
            writer.write(post(b"alone"))
            assert await answer(reader) == (b"fast", b"alone")

    asyncio.run(run())


@pytest.mark.parametrize(
    "request_",
    [
        post(b"x", b"Connection: close"),
        post(b"x", line=b"POST / HTTP/1.0"),
        post(b"x", line=b"POST /elsewhere HTTP/1.1"),
        post(b"x", line=b"PUT / HTTP/1.1"),
        post(b"x", b"Expect: 100-continue"),
        post(b"no"),
        b"POST / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n1\r\ny\r\n0\r\n\r\n",
    ],
    ids=["to be closed", "1.0", "path", "method", "expects", "not taken", "no body", "chunks"],
)
def test_each_request_is_answered_whichever_way_it_goes(request_: bytes) -> None:
    head, _, body = request_.partition(b"\r\n\r\n")
    is_fast = head.endswith((b"Host: x", b"chunked"))
    said = b"xy" if b"chunked" in head else body

    async def run() -> None:
        async with echoing() as (reader, writer):
            for _ in range(3):
                writer.write(request_)
                if b"Expect" in head:
                    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
                assert await answer(reader) == (b"fast" if is_fast else b"asgi", said)
                if b"close" in head or b"1.0" in head:
                    assert await asyncio.wait_for(reader.read(), 10) == b""
                    return

    asyncio.run(run())


def test_a_body_that_comes_later_is_waited_for() -> None:
    async def run() -> None:
        async with echoing() as (reader, writer):
            request = post(b"in two parts")
            for cut in (-5, -12, 20):
                writer.write(request[:cut])
                await writer.drain()
                await asyncio.sleep(0.05)  # so that it is read in two parts
                writer.write(request[cut:])
                _, body = await answer(reader)
                assert body == b"in two parts"

    asyncio.run(run())


def test_a_body_that_follows_its_head_at_once_goes_the_fast_path() -> None:
    async def run() -> None:
        async with connected() as (reader, _writer, server):
            head, _, body = post(b"in two writes").partition(b"\r\n\r\n")
            server.data_received(head + b"\r\n\r\n")
            server.data_received(body)
            assert await answer(reader) == (b"fast", b"in two writes")

    asyncio.run(run())


def test_a_body_that_does_not_follow_at_once_is_waited_for_by_asgi() -> None:
    """There is the deadline, and the bound on what is held."""

    async def run() -> None:
        async with connected() as (reader, _, server):
            head, _, body = post(b"late").partition(b"\r\n\r\n")
            server.data_received(head + b"\r\n\r\n")
            for _ in range(5):  # turns of the loop
                await asyncio.sleep(0)
            server.data_received(body)
            assert await answer(reader) == (b"asgi", b"late")

    asyncio.run(run())


@pytest.mark.parametrize("ends", ["hangs up", "shuts down"])
def test_a_head_without_its_body_is_let_go_of(ends: str) -> None:
    async def run() -> None:
        caught: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: caught.append(what))
        async with connected() as (reader, writer, server):
            head, _, body = post(b"late").partition(b"\r\n\r\n")
            server.data_received(head + b"\r\n\r\n")
            if ends == "hangs up":
                server.transport.abort()
                assert await asyncio.wait_for(reader.read(), 10) == b""
            else:
                server.shutdown()
                writer.write(body)
                assert await answer(reader) == (b"asgi", b"late")
                assert await asyncio.wait_for(reader.read(), 10) == b""
            await asyncio.sleep(0.05)
        assert not caught

    asyncio.run(run())


def test_what_comes_while_an_answer_is_due_waits_for_it() -> None:
    async def run() -> None:
        async with connected(after_s=0.2) as (reader, _writer, server):
            server.data_received(post(b"first"))
            server.data_received(post(b"second"))
            assert await answer(reader) == (b"fast", b"first")
            assert await answer(reader) == (b"asgi", b"second")

    asyncio.run(run())


def test_who_hangs_up_before_the_answer_harms_nobody() -> None:
    async def run() -> None:
        caught: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: caught.append(what))
        async with echoing(after_s=0.1) as (_, writer):
            writer.write(post(b"gone"))
            await asyncio.sleep(0.05)
            writer.close()
            await asyncio.sleep(0.15)
        assert not caught

    asyncio.run(run())


def test_a_server_that_shuts_down_answers_what_is_due_and_closes() -> None:
    async def run() -> None:
        async with connected(after_s=0.2) as (reader, _writer, server):
            server.data_received(post(b"last"))
            server.shutdown()
            assert await answer(reader) == (b"fast", b"last")
            assert await asyncio.wait_for(reader.read(), 10) == b""

    asyncio.run(run())


@pytest.mark.parametrize("rest", [b"no chunk\r\n", b"1\r\nx\r\nno chunk\r\n"])
def test_a_body_that_is_not_http_is_hung_up_on(rest: bytes) -> None:
    """A 400 is final; the sender may send it better."""

    async def run() -> None:
        async with echoing() as (reader, writer):
            writer.write(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + rest)
            assert await asyncio.wait_for(reader.read(), 10) == b""

    asyncio.run(run())


def test_an_idle_connection_is_closed_and_one_that_waits_for_its_answer_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "CHECK_INTERVAL_S", 0.1)

    async def run() -> None:
        async with echoing(after_s=0.6, keep_alive_s=0) as (reader, writer):
            writer.write(post(b"waits"))
            assert await answer(reader) == (b"fast", b"waits")
            assert await asyncio.wait_for(reader.read(), 10) == b""

    asyncio.run(run())


def test_a_head_that_has_just_come_is_not_idle() -> None:
    async def run() -> None:
        async with connected(keep_alive_s=0) as (reader, writer, server):
            head, _, body = post(b"late").partition(b"\r\n\r\n")
            server.data_received(head + b"\r\n\r\n")
            server._check()
            writer.write(body)
            assert (await answer(reader))[1] == b"late"

    asyncio.run(run())


def test_a_connection_that_is_gone_leaves_nothing_behind() -> None:
    async def run() -> None:
        served: list[BoundedHttp] = []
        async with echoing(served, shares=Shares(1_000_000)) as (reader, writer):
            writer.write(post(b"x"))
            await answer(reader)
            gone = weakref.ref(served.pop())
            writer.close()
            gc.disable()
            try:
                for _ in range(100):
                    await asyncio.sleep(0.02)
                    if gone() is None:
                        return
            finally:
                gc.enable()
        pytest.fail("It waits for the collector of cycles.")

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
    monkeypatch.setattr(http, "CHECK_INTERVAL_S", 0.1)
    monkeypatch.setattr(http, "HEAD_DEADLINE_S", 0.3)

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
