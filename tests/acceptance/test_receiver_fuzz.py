"""A receiver under everything that may arrive at an open port: it answers in the sender's terms or
hangs up, keeps what it says it kept, stays small, and is the same process at the end."""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from threading import Event
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from tests.acceptance.harness import Answer, Stack, request
from tests.support import malformed
from tests.support.cpu import cpu_s
from tests.support.deliver import body, order
from tests.support.malformed import HEAVY, MARK, MIB
from tests.support.memory import growth, rss_mib
from tests.support.servers.setups import POOLED
from tests.support.waiting import until
from tests.support.wire import Reply, Wire, chunked, head, length, signature, signed

REFUSALS = {400, 401, 408, 411, 413, 414, 417, 431}
QUICK_S = 20
"""More than a loaded machine takes; who waits in vain waits for longer."""
CHEAP_S = 3
"""Of computing: ten times what the dearest body takes."""
EVENT = body("fuzz.framing", {"id": 1, "mark": MARK})
CHUNKED = b"Transfer-Encoding: chunked"


def fuzz(examples: int) -> settings:
    """The receiver lives for the whole module on purpose: what one example leaves behind, the next
    one meets. Nothing shrinks towards time, so no example has a deadline but its connection's."""
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@pytest.fixture(scope="module", autouse=True)
def at_first(receiving: Stack) -> tuple[int, float]:
    """The receiver's process and its memory, before anything odd arrived."""
    assert receiving.post(order(1)).status == 200
    pid = receiving.processes[0].pid
    return pid, rss_mib(pid)


@pytest.fixture
def pid(at_first: tuple[int, float]) -> int:
    return at_first[0]


@pytest.fixture
def port(receiving: Stack) -> int:
    return receiving.ports[0]


def stored(stack: Stack) -> int:
    count: int = stack.value("SELECT count(*) FROM deliveries")
    return count


def kept(stack: Stack, answer: Answer | Reply) -> list[tuple[bytes, str | None]]:
    """The body and the reason of the delivery that an answer names."""
    found = stack.query(
        "SELECT body, rejected FROM deliveries WHERE id = :id",
        id=UUID(answer.headers["x-request-id"]),
    )
    return [(bytes(row["body"]), row["rejected"]) for row in found]


def exchange(port: int, raw: bytes) -> Reply | None:
    """The first answer to `raw`, or None when the connection was closed instead."""
    with Wire(port) as wire:
        wire.send(raw)
        return wire.reply()


# Bodies


@fuzz(200)
@given(malformed.events())
def test_whatever_is_an_event_is_200_and_kept_byte_for_byte(receiving: Stack, raw: bytes) -> None:
    answer = receiving.post(raw)
    assert (answer.status, answer.json) == (200, {"received": True})
    assert kept(receiving, answer) == [(raw, None)]


@fuzz(300)
@given(malformed.bodies)
def test_whatever_is_signed_is_kept_with_the_reason_it_was_refused_for(
    receiving: Stack, raw: bytes
) -> None:
    answer = receiving.post(raw)
    assert answer.status in (200, 400)
    assert kept(receiving, answer) == [(raw, answer.json.get("error"))]


@pytest.mark.parametrize("name", HEAVY)
def test_a_body_made_to_be_expensive_costs_the_receiver_little(
    receiving: Stack, name: str, pid: int
) -> None:
    """Who waits for it is its sender alone: see test_costly_bodies."""
    status, raw = HEAVY[name]
    before = cpu_s(pid)
    answer = receiving.post(raw)
    assert cpu_s(pid) - before < CHEAP_S
    assert answer.status == status
    assert kept(receiving, answer) == [(raw, answer.json.get("error"))]


# Headers


def assert_is_ours_to_give(stack: Stack, reply: Reply | None, raw: bytes) -> None:
    """A 200 for what is stored, a refusal in the sender's terms, or the end of the connection."""
    if reply is not None and reply.status == 200:
        assert kept(stack, reply) == [(raw, None)]
    elif reply is not None:
        assert reply.status in REFUSALS, reply


@fuzz(200)
@given(malformed.HEADER_NAMES, malformed.HEADER_VALUES, st.booleans(), st.integers(0, 3))
def test_an_odd_header_is_answered_or_hung_up_on(
    receiving: Stack, name: bytes, value: bytes, is_added: bool, place: int
) -> None:
    """In place of the right one, or beside it, before or after."""
    lines = [
        line
        for line in signature(EVENT)
        if is_added or not line.lower().startswith(name.lower() + b":")
    ]
    lines.insert(place, name + b": " + value)
    reply = exchange(receiving.ports[0], head(*lines, length(EVENT)) + EVENT)
    assert_is_ours_to_give(receiving, reply, EVENT)


def promises_more(value: bytes) -> bool:
    """Whether it is a length in order, and longer than the body."""
    digits = value.strip()
    return digits.isdigit() and len(EVENT) < int(digits) <= MIB


@fuzz(150)
@given(
    malformed.LENGTHS.filter(lambda value: not promises_more(value)),
    st.booleans(),
)
def test_an_odd_length_is_answered_or_hung_up_on(
    receiving: Stack, value: bytes, is_added: bool
) -> None:
    """But for one that promises more than comes: to wait for that until the body's deadline is
    right, and another test's."""
    more = [length(EVENT)] if is_added else []
    raw = head(*signature(EVENT), *more, b"Content-Length:" + value) + EVENT
    assert_is_ours_to_give(receiving, exchange(receiving.ports[0], raw), EVENT)


@fuzz(100)
@given(malformed.CODINGS, st.booleans())
def test_an_odd_transfer_coding_is_answered_or_hung_up_on(
    receiving: Stack, value: bytes, is_added: bool
) -> None:
    more = [CHUNKED] if is_added else []
    lines = [*signature(EVENT), *more, b"Transfer-Encoding:" + value]
    reply = exchange(receiving.ports[0], head(*lines) + chunked([EVENT]))
    assert_is_ours_to_give(receiving, reply, EVENT)


@pytest.mark.parametrize("count", [1, 100, 5_000])
def test_many_headers_are_no_reason_to_fail(receiving: Stack, count: int) -> None:
    lines = [b"X-%d: %s" % (number, MARK.encode()) for number in range(count)]
    reply = exchange(receiving.ports[0], head(*lines, *signature(EVENT), length(EVENT)) + EVENT)
    assert_is_ours_to_give(receiving, reply, EVENT)


# Framing

CHUNK_HEADS = [b"%x\r\n", b"%X\r\n", b"000%x\r\n", b"%x;a\r\n", b'%x;a="b"\r\n']


@fuzz(80)
@given(st.data())
def test_a_body_in_any_chunks_is_the_same_body(receiving: Stack, data: st.DataObject) -> None:
    """Chunk sizes, extensions, leading zeros and trailers are framing, not content."""
    raw = b'{"event":"fuzz.chunks","data":{"x":"%s"}}' % data.draw(
        st.binary(max_size=300).map(bytes.hex).map(str.encode)
    )
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=12)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True) if a < b]
    form = data.draw(st.sampled_from(CHUNK_HEADS))
    trailer = data.draw(st.sampled_from([b"", b"X-Sum: 1\r\n", b"Content-Type: x\r\nX: \xff\r\n"]))
    framed = b"".join(form % len(piece) + piece + b"\r\n" for piece in pieces)
    whole = head(*signature(raw), CHUNKED) + framed + b"0\r\n" + trailer + b"\r\n"
    reply = exchange(receiving.ports[0], whole)
    assert reply is not None
    assert reply.status == 200
    assert kept(receiving, reply) == [(raw, None)]


def spellings() -> dict[str, bytes]:
    """Return heads that are signed now."""
    return {
        "spaces around the length": head(
            *signature(EVENT), b"Content-Length: \t%d \t" % len(EVENT)
        ),
        "a length with leading zeros": head(
            *signature(EVENT), b"Content-Length: 00%d" % len(EVENT)
        ),
        "empty lines before the request": b"\r\n\r\n" + head(*signature(EVENT), length(EVENT)),
        "an absolute address": head(
            *signature(EVENT), length(EVENT), start=b"POST http://x/webhooks/awalchat HTTP/1.1"
        ),
        "an escaped path": head(
            *signature(EVENT), length(EVENT), start=b"POST /webhooks/%61walchat HTTP/1.1"
        ),
        "an expectation of something else": head(*signature(EVENT), b"Expect: x", length(EVENT)),
        "an expectation that is met": head(
            *signature(EVENT), b"Expect: 100-continue", length(EVENT)
        ),
    }


@pytest.mark.parametrize("name", spellings())
def test_a_harmless_spelling_ends_where_it_says_it_ends(receiving: Stack, name: str) -> None:
    """The next request on the connection begins there."""
    before = stored(receiving)
    with Wire(receiving.ports[0]) as wire:
        wire.send(spellings()[name] + EVENT + signed(EVENT))
        assert [reply.status for reply in wire.replies(2)] == [200, 200]
    assert stored(receiving) == before + 2


def _with(*lines: bytes, body: bytes = EVENT) -> bytes:
    return head(*signature(EVENT), *lines) + body


_IN_CHUNKS = chunked([EVENT])
_HERE = length(EVENT)
AMBIGUOUS: dict[str, bytes] = {
    "a length, then chunks": _with(_HERE, CHUNKED, body=_IN_CHUNKS),
    "chunks, then a length": _with(CHUNKED, _HERE, body=_IN_CHUNKS),
    "no chunks at all, and a length": _with(CHUNKED, _HERE, body=b"0\r\n\r\n"),
    "the same length twice": _with(_HERE, _HERE),
    "two lengths": _with(_HERE, b"Content-Length: 0"),
    "a list of lengths": _with(_HERE + b", %d" % len(EVENT)),
    "a negative length": _with(b"Content-Length: -1"),
    "a length with a plus": _with(b"Content-Length: +%d" % len(EVENT)),
    "a length in two words": _with(b"Content-Length: 1 2"),
    "a length in hexadecimal": _with(b"Content-Length: 0x10"),
    "a length that overflows": _with(b"Content-Length: %d" % 2**64),
    "no length in its header": _with(b"Content-Length:"),
    "a space before the colon": _with(b"Content-Length : %d" % len(EVENT)),
    "a folded length": _with(b"Content-Length:\r\n %d" % len(EVENT)),
    "a length after a bare line feed": _with(b"X: 1\n" + _HERE),
    "a length after a bare carriage return": _with(b"X: 1\r" + _HERE),
    "chunked, but not at last": _with(b"Transfer-Encoding: chunked, gzip", body=_IN_CHUNKS),
    "chunked twice": _with(b"Transfer-Encoding: chunked, chunked", body=_IN_CHUNKS),
    "an unknown coding": _with(b"Transfer-Encoding: xchunked", body=_IN_CHUNKS),
    "a vertical tab in the coding": _with(b"Transfer-Encoding: \x0bchunked", body=_IN_CHUNKS),
    "the identity coding": _with(b"Transfer-Encoding: identity", body=_IN_CHUNKS),
    "a negative chunk": _with(CHUNKED, body=b"-1\r\nx\r\n0\r\n\r\n"),
    "a chunk with a plus": _with(CHUNKED, body=b"+1\r\nx\r\n0\r\n\r\n"),
    "a chunk with a prefix": _with(CHUNKED, body=b"0x1\r\nx\r\n0\r\n\r\n"),
    "a chunk that overflows": _with(CHUNKED, body=b"F" * 17 + b"\r\nx\r\n0\r\n\r\n"),
    "a chunk longer than it says": _with(CHUNKED, body=b"1\r\nxyz\r\n0\r\n\r\n"),
    "chunks between bare line feeds": _with(CHUNKED, body=b"1\nx\n0\n\n"),
    "no size of a chunk": _with(CHUNKED, body=b"\r\nx\r\n0\r\n\r\n"),
    "a length after the chunks": _with(
        CHUNKED, body=_IN_CHUNKS.removesuffix(b"\r\n") + b"Content-Length: 9\r\n\r\n"
    ),
    "an unknown version": head(*signature(EVENT), _HERE, start=b"POST / HTTP/9.9") + EVENT,
    "a name with a space": _with(b"X Y: 1", _HERE),
    "a header without a name": _with(b": 1", _HERE),
    "a NUL in a header": _with(b"X: \x00", _HERE),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a tunnel": b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_ambiguous_framing_is_refused_and_nothing_behind_it_is_a_request(
    receiving: Stack, name: str
) -> None:
    """Smuggling: a proxy that ends the request elsewhere would take what follows for its body, or
    the other way round. So the connection ends, and the signed request behind is not stored."""
    before = stored(receiving)
    with Wire(receiving.ports[0]) as wire:
        wire.send(AMBIGUOUS[name] + signed(order(2)))
        reply = wire.reply()
        assert reply is None or reply.status == 400
        assert wire.is_closed()
    assert stored(receiving) == before


@fuzz(100)
@given(st.binary(min_size=1, max_size=500).map(lambda raw: raw.lstrip(b"\r\n") or b"\x00"))
def test_what_is_not_http_is_refused(receiving: Stack, raw: bytes) -> None:
    reply = exchange(receiving.ports[0], raw + b"\r\n\r\n")
    assert reply is None or reply.status in {*REFUSALS, 404, 405}


@fuzz(150)
@given(st.data())
def test_half_a_request_is_never_stored(receiving: Stack, data: st.DataObject) -> None:
    """Cut anywhere, and hung up on in either way: the receiver notices the end at once."""
    before, whole = stored(receiving), signed(EVENT)
    raw = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with Wire(receiving.ports[0]) as wire:
        wire.send(raw)
        if data.draw(st.booleans()):
            wire.reset()
        else:
            wire.end()
            assert wire.is_closed()
    assert stored(receiving) == before


def test_pipelined_requests_are_answered_in_order_and_stored_once_each(
    receiving: Stack, port: int
) -> None:
    before = stored(receiving)
    raws = [body("fuzz.pipelined", {"id": number, "mark": MARK}) for number in range(20)]
    with Wire(port) as wire:
        wire.send(b"".join(signed(raw) for raw in raws))
        replies = wire.replies(20)
    assert [reply.status for reply in replies] == [200] * 20
    assert [kept(receiving, reply) for reply in replies] == [[(raw, None)] for raw in raws]
    assert stored(receiving) == before + 20


def test_a_pipeline_goes_on_after_refusals_that_read_the_whole_request(
    receiving: Stack, port: int
) -> None:
    before = stored(receiving)
    unsigned, unknown = head(length(EVENT)) + EVENT, head(start=b"GET /nothing HTTP/1.1")
    rejected = b'{"event": 7, "data": {}}'
    with Wire(port) as wire:
        wire.send((unsigned + signed(rejected) + unknown + signed(EVENT)) * 5)
        replies = wire.replies(20)
    assert [reply.status for reply in replies] == [401, 400, 404, 200] * 5
    assert stored(receiving) == before + 10


def test_a_sender_that_does_not_read_its_answers_holds_up_nobody(
    receiving: Stack, pid: int, port: int
) -> None:
    """It is hung up on when more requests wait than a pipeline holds."""
    with ThreadPoolExecutor(1) as pool, Wire(port, receives=4_096) as wire:
        with growth(pid) as grown:
            sent = pool.submit(wire.send, signed(EVENT) * 2_000)
            answers = [receiving.post(order(100 + number)) for number in range(50)]
            sent.result()
        assert [answer.status for answer in answers] == [200] * 50
        assert max(answer.seconds for answer in answers) < QUICK_S
        assert grown.mib < 48
    assert sent.done()


# Many and large


def _drip(port: int, start: bytes, ended: Event, *, connections: int) -> None:
    """Send a byte a tenth of a second on each connection; one that is closed is opened again."""
    with ExitStack() as opened:
        wires: list[Wire] = []
        while not ended.wait(0.1):
            wires = [wire for wire in wires if wire.send(b"x")]
            while len(wires) < connections:
                wires.append(opened.enter_context(Wire(port)))
                wires[-1].send(start)


def test_idle_and_dripping_connections_cost_a_sender_nothing(
    receiving: Stack, pid: int, port: int
) -> None:
    """What bounds them: a connection that says nothing costs 7 KiB (measured), and there are no
    more of them than files that the process may open; a body that drips ends at its deadline, and
    all such halves together at `max_inflight_body_bytes`."""
    ended = Event()
    with growth(pid) as grown, ThreadPoolExecutor(2) as pool, ExitStack() as idle:
        for _ in range(500):
            idle.enter_context(Wire(port))
        for start in (head()[:-2] + b"X: ", head(b"Content-Length: 1000")):
            pool.submit(_drip, port, start, ended, connections=100)
        try:
            answers = receiving.post_all([order(200 + n) for n in range(1_000)], connections=2)
        finally:
            ended.set()
    assert {answer.status for answer in answers} == {200}
    assert max(answer.seconds for answer in answers) < QUICK_S
    assert grown.mib < 32


def _send_20_mib(port: int, *, is_chunked: bool) -> Reply | None:
    piece = b"%x\r\n%s\r\n" % (65_536, b"x" * 65_536) if is_chunked else b"x" * 65_536
    with Wire(port) as wire:
        wire.send(head(CHUNKED if is_chunked else b"Content-Length: %d" % (20 * MIB)))
        all(wire.send(piece) for _ in range(320))
        return wire.reply()


@pytest.mark.parametrize("is_chunked", [True, False], ids=["chunked", "declared"])
def test_ten_bodies_of_20_mib_at_once_are_not_held(
    receiving: Stack, pid: int, port: int, is_chunked: bool
) -> None:
    """Each holds a body's limit at most while it is read, and nothing while its rest is dropped:
    10 x 1 MiB (14 MiB measured), with room for the allocator. All of them would be 200 MiB. Who
    goes on writing for long may find its 413 lost in the reset."""
    with growth(pid) as grown, ThreadPoolExecutor(10) as pool:
        sending = [pool.submit(_send_20_mib, port, is_chunked=is_chunked) for _ in range(10)]
        replies = [each.result() for each in sending]
        assert receiving.post(order(3)).status == 200
    assert all(reply is None or reply.status == 413 for reply in replies)
    assert grown.mib < 40


# A database that stalls


freezes_the_writers_connection = pytest.mark.not_on(
    *POOLED, reason="the writer has no connection of its own to the server"
)


@contextmanager
def frozen(stack: Stack) -> Iterator[None]:
    """The server's side of the writer's connection does nothing: no time-out of its own helps."""
    assert stack.post(order(0)).status == 200
    (backend,) = stack.query(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND query LIKE '%INSERT INTO ingest.deliveries%'"
    )
    os.kill(backend["pid"], signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(backend["pid"], signal.SIGCONT)


@contextmanager
def locked(stack: Stack) -> Iterator[None]:
    """No insert gets through, over whatever connection."""
    with stack.engine.begin() as connection:
        connection.execute(text("LOCK TABLE unadmitted IN ACCESS EXCLUSIVE MODE"))
        yield


def let_its_loop_turn(stack: Stack) -> None:
    """Each answer takes a few turns, in which what had arrived before goes on."""
    for _ in range(10):
        assert request(stack.ports[0], "GET", "/health/live").status == 200


@freezes_the_writers_connection
@pytest.mark.parametrize(
    ("limit", "room"),
    [({"backlog_max_rows": "20"}, 20), ({"backlog_max_bytes": "12000"}, 30)],
    ids=["rows", "bytes"],
)
def test_beyond_the_backlog_it_is_503_at_once_and_what_waited_is_200(
    make_stack: Callable[..., Stack], limit: dict[str, str], room: int
) -> None:
    stack = make_stack(flush_timeout_s="120", retry_after_s="7", **limit)
    stack.receiver()
    raws = [order(number) for number in range(61)]
    with ThreadPoolExecutor(61) as pool:
        with frozen(stack), Wire(stack.ports[0]) as first:
            first.send(signed(raws[0]))
            let_its_loop_turn(stack)
            pending = [pool.submit(stack.post, raw) for raw in raws[1:]]
            until(lambda: _done(pending) >= 60 - room, what="the rest is refused")
            let_its_loop_turn(stack)
        answers = [each.result() for each in pending]
    refused = [answer for answer in answers if answer.status != 200]
    assert {answer.status for answer in refused} == {503}
    assert {answer.headers["retry-after"] for answer in refused} == {"7"}
    assert {answer.json["error"] for answer in refused} == {"backlog_full"}
    assert max(answer.seconds for answer in refused) < QUICK_S
    assert 60 - room <= len(refused) < 60
    assert_all_gets_through(stack, raws[1:], answers)


def _done(pending: list[Future[Any]]) -> int:
    return sum(each.done() for each in pending)


def assert_all_gets_through(stack: Stack, raws: list[bytes], answers: list[Answer]) -> None:
    """What was refused is sent again, as its sender would: then all is there, and only that (and
    the first order, which was sent beforehand)."""
    again = [raw for raw, answer in zip(raws, answers, strict=True) if answer.status != 200]
    assert {answer.status for answer in stack.post_all(again, connections=4)} == {200}
    found = stack.query("SELECT DISTINCT body FROM deliveries")
    assert {bytes(row["body"]) for row in found} == {order(0), *raws}
    assert stack.processes[0].poll() is None
    assert "request_failed" not in stack.logs()


def test_a_stall_beyond_the_flush_timeout_is_503_and_it_recovers_by_itself(
    make_stack: Callable[..., Stack],
) -> None:
    stack = make_stack(flush_timeout_s="2", backlog_max_rows="10")
    stack.receiver()
    raws = [order(number) for number in range(40)]
    with locked(stack):
        answers = stack.post_all(raws, connections=20)
    assert {answer.status for answer in answers} == {503}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
    assert max(answer.seconds for answer in answers) < QUICK_S
    until(lambda: stack.post(raws[0]).status == 200, what="it stores again")
    assert_all_gets_through(stack, raws, answers)


@freezes_the_writers_connection
def test_a_connection_that_freezes_is_given_up_and_replaced_while_it_is_frozen(
    make_stack: Callable[..., Stack],
) -> None:
    stack = make_stack(flush_timeout_s="2")
    stack.receiver()
    with frozen(stack):
        answer = stack.post(order(1))
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert answer.seconds < QUICK_S
        until(lambda: stack.post(order(1)).status == 200, what="it stores again")
    assert_all_gets_through(stack, [order(1)], [answer])


# Last in its module: what is left of all this


def test_after_all_this_it_is_the_same_process_and_no_larger(
    receiving: Stack, at_first: tuple[int, float]
) -> None:
    pid, before = at_first
    assert receiving.post(order(4)).status == 200
    assert receiving.processes[0].poll() is None
    assert receiving.logs().count("Started server process") == 1
    assert rss_mib(pid) - before < 60  # 22 measured


def test_after_all_this_the_logs_name_no_fault_of_ours_and_quote_nothing(
    receiving: Stack,
) -> None:
    logs = receiving.logs()
    assert "request_refused" in logs
    assert MARK not in logs
    for fault in ('"level": "error"', '"level": "critical"', "request_failed", "Traceback"):
        assert fault not in logs
