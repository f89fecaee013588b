"""What anybody can send to the HTTP server and leave unread is bounded; nothing honest is lost."""

import asyncio
import contextlib
import time
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from ingest.receiver import server as http
from ingest.receiver.client_shares import Shares
from ingest.receiver.fastpath import FastPathHttp
from ingest.receiver.server import BoundedHttp
from tests.support.serving import serving
from tests.unit.test_http_connections import answer, connected, echoing, not_found, post, refused

CHUNKED = b"POST /elsewhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
OFFER = (b"Connection: Upgrade", b"UpGrade: h2c")


async def bytes_taken(writer: asyncio.StreamWriter, piece: bytes, *, until_bytes: int) -> int:
    """How much is sent before the other side hangs up."""
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < until_bytes:
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
    return sent


async def until_served(served: list[BoundedHttp]) -> None:
    """Wait until the server has accepted."""
    for _ in range(1_000):
        if served:
            return
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "begun",
    [
        CHUNKED + b"0\r\nX: ",
        CHUNKED + b"0\r\n",
        CHUNKED + b"1;",
        CHUNKED + b"1\r\nx\r\n0;",
        b"\r\n",
        b"POST /",
    ],
    ids=["trailer", "trailers", "extension", "last extension", "blank lines", "request line"],
)
def test_what_the_parser_takes_in_silence_is_bounded(begun: bytes) -> None:
    piece = {CHUNKED + b"0\r\n": b"X: y\r\n" * 1_000, b"\r\n": b"\r\n" * 2_000}.get(
        begun, b"a" * 4_000
    )

    async def run() -> None:
        served: list[BoundedHttp] = []
        async with echoing(served) as (reader, writer):
            writer.write(begun)
            taken = 0

            def count(data: bytes, take: Any = FastPathHttp.data_received) -> None:
                nonlocal taken
                taken += len(data)
                take(served[0], data)

            await until_served(served)
            served[0].data_received = count  # type: ignore[method-assign]
            await bytes_taken(writer, piece, until_bytes=8 * 1024 * 1024)
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 10) == b""
            assert taken <= http.HEAD_LIMIT + 256 * 1024  # what one read may bring

    asyncio.run(run())


def test_chunks_and_their_extensions_may_be_many() -> None:
    """Only what comes between two pieces of a body is bounded."""

    async def run() -> None:
        async with echoing() as (reader, writer):
            extended = b"1;" + b"a" * 30_000 + b"\r\nx\r\n"
            for _ in range(10):
                writer.write((CHUNKED if _ == 0 else b"") + extended)
                await writer.drain()
            writer.write(b"0\r\n\r\n")
            assert await answer(reader) == (b"asgi", b"x" * 10)

    asyncio.run(run())


def test_a_body_that_comes_after_its_answer_is_dropped_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "DROP_LIMIT", 500_000)

    async def run() -> None:
        async with serving(not_found) as (reader, writer):
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")
            await refused(reader)
            sent = await bytes_taken(writer, b"x" * 65_536, until_bytes=90_000_000)
            assert sent < 90_000_000

    asyncio.run(run())


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with more than any kernel keeps for who does not read."""
    body = b"x" * 20_000_000
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize("line", [b"POST / HTTP/1.1", b"POST / HTTP/1.0"], ids=["kept", "closed"])
def test_who_does_not_take_its_answer_is_hung_up_on(
    line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "CHECK_INTERVAL_S", 0.05)
    monkeypatch.setattr(http, "WRITE_DEADLINE_S", 0.2)

    async def run() -> None:
        served: list[BoundedHttp] = []
        async with serving(large, served) as (_reader, writer):
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(post(b"x", line=line))
            for _ in range(1_000):
                await asyncio.sleep(0.01)
                if served and served[0] not in served[0].connections:
                    return
            pytest.fail("It is still open.")

    asyncio.run(run())


def test_white_space_around_a_value_is_no_part_of_it() -> None:
    async def run() -> None:
        values: list[list[tuple[bytes, bytes]]] = []

        async def note(scope: Scope, receive: Receive, send: Send) -> None:
            values.append(list(scope["headers"]))
            await not_found(scope, receive, send)

        async with serving(note) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nA: \t1 2 \t\r\nB:1\t\r\nC:  \r\n\r\n")
            await refused(reader)
        (headers,) = values
        assert dict(headers) == {b"host": b"x", b"a": b"1 2", b"b": b"1", b"c": b""}

    asyncio.run(run())


BODIES = [b"\r\nupgrade: h2c\r\n", b"upgrade: x", b"\nUPGRADE:\nupgrade:", b"x\r\n\r\nupgrade: y"]


def in_chunks(body: bytes, *more: bytes) -> bytes:
    """`body` in two chunks."""
    head = b"\r\n".join((b"POST / HTTP/1.1", b"Host: x", *more, b"Transfer-Encoding: chunked", b""))
    cut = len(body) // 2
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:cut], body[cut:]))
    return head + b"\r\n" + pieces + b"0\r\n\r\n"


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("form", [post, in_chunks], ids=["length", "chunks"])
def test_an_offer_to_upgrade_is_ignored_and_no_body_is_altered_however_it_is_cut(
    body: bytes, form: Any
) -> None:
    """Each request twice in a row, cut in two at each place."""
    whole = form(body, *OFFER) * 2

    async def run() -> None:
        async with connected() as (reader, _writer, server):
            for cut in range(len(whole)):
                server.data_received(whole[:cut])
                server.data_received(whole[cut:])
                for _ in range(2):
                    assert (await answer(reader))[1] == body

    asyncio.run(run())


def test_an_offer_that_comes_byte_by_byte_is_ignored() -> None:
    async def run() -> None:
        async with connected() as (reader, _writer, server):
            for byte in post(b"as it was", *OFFER):
                server.data_received(bytes([byte]))
            assert (await answer(reader))[1] == b"as it was"

    asyncio.run(run())


def test_a_body_full_of_offers_costs_no_more_than_another() -> None:
    """Each is looked at only as long as a pipeline could hold requests."""
    body = b"\nupgrade:" * 20_000

    async def run() -> None:
        pieces = 0
        async with connected() as (reader, _writer, server):
            on_body = server.on_body

            def count(piece: bytes) -> None:
                nonlocal pieces
                pieces += 1
                on_body(piece)

            server.on_body = count  # type: ignore[method-assign,assignment]
            server.data_received(post(body))
            assert (await answer(reader))[1] == body
        assert pieces <= http.PIPELINE_LIMIT + 1

    asyncio.run(run())


@pytest.mark.parametrize(
    "request_", [post(b"last"), post(b"last", line=b"POST /elsewhere HTTP/1.1")]
)
def test_a_sender_that_says_that_it_has_ended_gets_its_answer(request_: bytes) -> None:
    async def run() -> None:
        async with echoing(after_s=0.2) as (reader, writer):
            writer.write(request_)
            writer.write_eof()
            assert (await answer(reader))[1] == b"last"
            assert await asyncio.wait_for(reader.read(), 10) == b""

    asyncio.run(run())


def test_a_sender_that_ends_after_several_requests_gets_all_answers() -> None:
    async def run() -> None:
        async with echoing(after_s=0.05) as (reader, writer):
            writer.write(post(b"1") + post(b"2") + post(b"3"))
            writer.write_eof()
            assert [(await answer(reader))[1] for _ in range(3)] == [b"1", b"2", b"3"]
            assert await asyncio.wait_for(reader.read(), 10) == b""

    asyncio.run(run())


@pytest.mark.parametrize("ends", ["idle", "shutdown"])
@pytest.mark.parametrize("arrives", [post(b"late"), b"P"], ids=["whole", "one byte"])
def test_a_request_that_has_arrived_but_was_not_read_is_answered(ends: str, arrives: bytes) -> None:
    async def run() -> None:
        async with connected(keep_alive_s=0) as (reader, writer, server):
            writer.write(arrives)  # which sends at once, without a turn of the loop
            if ends == "idle":
                server._check()
            else:
                server.shutdown()
            writer.write(post(b"late")[len(arrives) :])
            assert (await answer(reader))[1] == b"late"

    asyncio.run(run())


def test_a_head_that_has_begun_has_its_own_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it begins in the packet in which a request before it ends."""
    monkeypatch.setattr(http, "CHECK_INTERVAL_S", 0.05)
    monkeypatch.setattr(http, "HEAD_DEADLINE_S", 0.2)

    async def run() -> None:
        async with echoing() as (reader, writer):
            began = time.monotonic()
            writer.write(post(b"whole") + b"POST / HT")
            assert (await answer(reader))[1] == b"whole"
            assert await asyncio.wait_for(reader.read(), 10) == b""
            assert time.monotonic() - began >= 0.2

    asyncio.run(run())


HALF_HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nX: "
_Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect_from(address: str, server: BoundedHttp) -> _Client:
    """Connect to the same server from another address of this machine."""
    where = server.transport.get_extra_info("sockname")
    return await asyncio.open_connection(*where, local_addr=(address, 0))


async def is_closed(reader: asyncio.StreamReader) -> bool:
    """Wait until the other side closes, having said nothing."""
    try:
        return await asyncio.wait_for(reader.read(), 60) == b""
    except ConnectionError:  # it had not read all
        return True


def test_half_heads_from_one_address_keep_out_no_other() -> None:
    room = 4 * (http.CONNECTION_BYTES + 40_000)

    async def run() -> None:
        served: list[BoundedHttp] = []
        async with echoing(served, shares=Shares(room)) as (reader, writer):
            writer.write(post(b"honest")[:20])
            await until_served(served)
            attackers = []
            for _ in range(10):
                attackers.append(await connect_from("127.0.0.2", served[0]))
                attackers[-1][1].write(HALF_HEAD + b"a" * 40_000)
                await attackers[-1][1].drain()
            for attacker, _ in attackers[:6]:
                assert await is_closed(attacker)
            writer.write(post(b"honest")[20:])
            assert (await answer(reader))[1] == b"honest"
            for _, attacking in attackers:
                attacking.close()

    asyncio.run(run())


@pytest.mark.parametrize("before", [b"", post(b"whole")], ids=["alone", "behind a request"])
@pytest.mark.parametrize(
    "more",
    [b"a" * 60_000, b"\r\n" + b"a:\r\n" * 10_000 + b"a: b"],
    ids=["a long header", "many headers"],
)
def test_a_half_head_counts_with_all_that_it_holds(before: bytes, more: bytes) -> None:
    """Until it is whole."""

    async def run() -> None:
        served: list[BoundedHttp] = []
        shares = Shares(100_000_000)
        async with echoing(served, shares=shares) as (reader, writer):
            writer.write(post(b"first"))
            assert (await answer(reader))[1] == b"first"
            assert shares._total == http.CONNECTION_BYTES
            server = served[0]
            server.data_received(before + HALF_HEAD + more)
            least = 1_000_000 if more.count(b":") > 1 else 60_000
            assert shares._total >= http.CONNECTION_BYTES + least
            server.data_received(b"\r\nContent-Length: 0\r\n\r\n")
            assert shares._total == http.CONNECTION_BYTES
            for body in (b"whole", b"") if before else (b"",):
                assert (await answer(reader))[1] == body
        for _ in range(1_000):
            if not shares._total:
                return
            await asyncio.sleep(0.01)
        pytest.fail("A connection that is gone holds room.")

    asyncio.run(run())


def test_a_connection_that_waits_for_its_answer_makes_room_afterwards() -> None:
    async def run() -> None:
        served: list[BoundedHttp] = []
        shares = Shares(2 * http.CONNECTION_BYTES)
        async with echoing(served, after_s=1, shares=shares) as (reader, writer):
            writer.write(post(b"due"))
            await until_served(served)
            for _ in range(1_000):
                if served[0]._is_busy:
                    break
                await asyncio.sleep(0.01)
            idle, writing = await connect_from("127.0.0.1", served[0])
            newest, writing_too = await connect_from("127.0.0.1", served[0])
            assert (await answer(reader))[1] == b"due"
            assert await is_closed(reader)
            fourth, writing_last = await connect_from("127.0.0.1", served[1])
            assert await is_closed(idle)
            for number, (each, towards) in enumerate(
                ((newest, writing_too), (fourth, writing_last))
            ):
                towards.write(post(b"%d" % number))
                assert (await answer(each))[1] == b"%d" % number
                towards.close()
            writing.close()

    asyncio.run(run())
