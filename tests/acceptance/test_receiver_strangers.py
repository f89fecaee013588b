"""The receiver as a process, while strangers do what they can."""

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from tests.acceptance.harness import Stack, request
from tests.support.deliver import order
from tests.support.memory import growth
from tests.support.waiting import until
from tests.support.wire import Wire, head, length, signature, signed

MIB = 1024 * 1024
CHUNKED = b"Transfer-Encoding: chunked"


@pytest.fixture(scope="module")
def port(receiving: Stack) -> int:
    return receiving.ports[0]


def logged(stack: Stack, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in stack.logs().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def test_a_trailer_without_end_is_hung_up_on_and_holds_up_nobody(
    make_stack: Callable[..., Stack],
) -> None:
    """Its bytes are bounded, not only its time."""
    stack = make_stack(body_deadline_s="600")
    stack.receiver()
    with Wire(stack.ports[0]) as wire:
        wire.send(head(CHUNKED) + b"0\r\nX: ")
        sent = 0
        while sent < 40 and wire.send(b"a" * MIB):
            sent += 1
            assert stack.post(order(1)).status == 200
    assert sent < 20  # what kernels hold is beyond the bound


def test_what_is_no_http_is_logged_once_a_second(receiving: Stack, port: int) -> None:
    began = time.monotonic()
    for garbage in [
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x00" * 20,
    ] * 100:
        with Wire(port) as wire:
            wire.send(garbage)
            wire.reply()
    lines = logged(receiving, "Invalid HTTP request received.")
    assert 1 <= len(lines) <= time.monotonic() - began + 2
    sent = 300

    def all_are_told() -> bool:
        """Send one more, which is logged if none was for a second; with it, what was left out."""
        nonlocal sent
        sent += 1
        with Wire(port) as wire:
            wire.send(b"\x00\x00\r\n\r\n")
            wire.reply()
        lines = logged(receiving, "Invalid HTTP request received.")
        return sum(int(line.get("left_out", 0)) + 1 for line in lines) == sent

    until(all_are_told)


def test_half_bodies_from_one_address_keep_out_nobody(make_stack: Callable[..., Stack]) -> None:
    """The attack and the honest deliveries come from the same address here, as behind a proxy."""
    stack = make_stack()
    stack.receiver()
    raw = order(7)
    with ExitStack() as opened:
        attackers = [opened.enter_context(Wire(stack.ports[0])) for _ in range(66)]
        for wire in attackers:
            wire.send(head(b"Content-Length: %d" % MIB) + b"x" * (MIB - 1))
        for _ in range(10):
            with Wire(stack.ports[0]) as honest:
                honest.send(head(*signature(raw), length(raw)) + raw[:10])
                for _ in range(5):
                    assert request(stack.ports[0], "GET", "/health/live").status == 200
                honest.send(raw[10:])
                reply = honest.reply()
                assert reply is not None
                assert reply.status == 200


def test_half_heads_from_one_address_keep_out_nobody_and_hold_a_bounded_amount(
    make_stack: Callable[..., Stack],
) -> None:
    """60 of them, each of 15,000 headers, 2.4 MB as they are kept: 140 MB together."""
    stack = make_stack(max_inflight_body_bytes="20000000")
    process = stack.receiver()
    raw = order(11)
    with ExitStack() as opened, growth(process.pid) as grown:
        honest = opened.enter_context(Wire(stack.ports[0]))
        honest.send(head(*signature(raw), length(raw))[:-2])
        for _ in range(60):
            attacker = opened.enter_context(Wire(stack.ports[0], source="127.0.0.2"))
            attacker.send(head(*[b"a:"] * 15_000)[:-2])
        honest.send(b"\r\n" + raw)
        reply = honest.reply()
        assert reply is not None
        assert reply.status == 200
        assert stack.post(order(12)).status == 200
    assert grown.mib < 80, grown.mib


def test_white_space_after_a_signature_is_no_part_of_it(receiving: Stack, port: int) -> None:
    raw = order(8)
    lines = [line + b" \t " for line in signature(raw)]
    for pieces in ([head(*lines, length(raw)) + raw], [head(*lines, length(raw)), raw]):
        with Wire(port) as wire:
            for piece in pieces:
                wire.send(piece)
                assert request(port, "GET", "/health/live").status == 200
            reply = wire.reply()
            assert reply is not None
            assert reply.status == 200


def test_a_sender_that_ends_its_side_gets_its_answer(port: int) -> None:
    with Wire(port) as wire:
        wire.send(signed(order(9)))
        wire.end()
        reply = wire.reply()
        assert reply is not None
        assert reply.status == 200
        assert wire.is_closed()


def test_a_wrong_path_is_counted_and_sampled(receiving: Stack, port: int) -> None:
    for path in ("/webhook/awalchat", "/webhooks/awalchat/", "//webhooks/awalchat"):
        assert request(port, "POST", path, b"{}", {"user-agent": "a sender"}).status == 404
    (sample, *_) = until(
        lambda: receiving.query(
            "SELECT detail FROM refusals WHERE reason = 'not_found' ORDER BY at DESC"
        ),
        timeout_s=300,
    )
    assert sample["detail"]["path"].startswith("POST /")
    assert sample["detail"]["user-agent"] == "a sender"
    line = logged(receiving, "request_refused")
    assert any(each["reason"] == "not_found" for each in line)
    assert "/webhook/awalchat" not in receiving.logs()


DEEP: dict[str, tuple[int, bytes]] = {
    "deep": (400, b'{"event":"x","data":' + b"[" * 500_000 + b"]" * 500_000 + b"}"),
    "keys": (
        200,
        b'{"event":"x","data":{' + b",".join(b'"%06d":1.5' % n for n in range(70_000)) + b"}}",
    ),
}


@pytest.mark.parametrize("name", DEEP)
def test_a_large_body_is_answered_as_a_small_one_would_be(receiving: Stack, name: str) -> None:
    status, raw = DEEP[name]
    answer = receiving.post(raw)
    assert answer.status == status
    rows = receiving.query("SELECT 1 FROM deliveries WHERE body = :raw", raw=raw)
    assert len(rows) == 1


@pytest.fixture
def few_files(make_stack: Callable[..., Stack]) -> Stack:
    """A receiver that may open 100 files."""
    stack = make_stack()
    process = stack.receiver()
    resource = pytest.importorskip("resource")
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (60, 60))
    return stack


def test_running_out_of_files_is_said_and_got_over(few_files: Stack) -> None:
    with ExitStack() as opened:
        for _ in range(100):
            opened.enter_context(Wire(few_files.ports[0]))
        until(lambda: logged(few_files, "file_descriptors_used_up"))
    until(lambda: _is_ok(few_files))
    assert len(logged(few_files, "file_descriptors_used_up")) < 60


def _is_ok(stack: Stack) -> bool:
    try:
        return stack.post(order(10)).status == 200
    except OSError:
        return False
