"""Bodies that hold whoever parses them hold up nobody else, whatever becomes of who parses them."""

import json
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.acceptance.harness import Stack, request
from tests.support.deliver import body, order
from tests.support.fleet import children_of, send
from tests.support.signing import SECRET
from tests.support.sources import awalchat
from tests.support.waiting import until

SOURCE = awalchat(SECRET)
PADDING = " " * 200_000


def costly(number: int) -> bytes:
    return body("note.added", {"number": number, "list": [1.5, *([[]] * 60_000)]})


def child_of(stack: Stack) -> int:
    """Return the pid of the process that names bodies, once there is one."""
    (pid,) = until(lambda: children_of(stack.processes[0].pid))
    return pid


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def stack(make_stack: Callable[..., Stack]) -> Stack:
    stack = make_stack()
    stack.receiver()
    return stack


def test_a_costly_body_is_named_by_a_process_of_its_own_as_any_other_is(stack: Stack) -> None:
    for number in range(3):
        assert stack.post(order(number, note="x" * 100_000)).status == 200
    assert children_of(stack.processes[0].pid) == []
    stored = []
    for number in range(3):
        assert stack.post(costly(number)).status == 200
        stored.append(child_of(stack))
    assert len(set(stored)) == 1
    rows = stack.query(
        "SELECT event_id, type, fingerprint FROM unadmitted WHERE type = 'note.added'"
        " ORDER BY received_at"
    )
    names = [SOURCE.identify(SOURCE.parse(costly(number))) for number in range(3)]
    assert [(row["event_id"], row["type"], bytes(row["fingerprint"])) for row in rows] == [
        (name.event_id, name.type, name.fingerprint) for name in names
    ]


def test_a_large_body_is_refused_as_a_small_one_is(stack: Stack) -> None:
    small = [
        b'{"event":',
        b"[]",
        b'{"event":7,"data":{}}',
        b'{"event":"x","data":[1]}',
        b'{"event":"x","data":{"x":%b%b}}' % (b"[" * 100, b"]" * 100),
        b'{"event":"x","data":{"x":"\xff"}}',
        b'{"event":"x","data":{"x":NaN}}',
    ]
    for raw in small:
        answers = [stack.post(sent) for sent in (raw, raw + PADDING.encode())]
        assert {answer.status for answer in answers} == {400}
        said = [(answer.json["error"], answer.json["message"]) for answer in answers]
        assert said[0] == said[1]
    assert is_running(child_of(stack))


def test_while_a_body_is_parsed_others_are_answered(stack: Stack) -> None:
    assert stack.post(costly(0)).status == 200
    child = child_of(stack)
    with ThreadPoolExecutor(1) as pool:
        os.kill(child, signal.SIGSTOP)
        pending = pool.submit(stack.post, costly(1))
        for number in range(20):
            assert stack.post(order(number)).status == 200
            assert request(stack.ports[0], "GET", "/health/live").status == 200
        send(child, signal.SIGCONT)
        assert pending.result().status == 200


def test_a_body_whose_parser_is_killed_is_answered_and_the_next_has_another(stack: Stack) -> None:
    assert stack.post(costly(0)).status == 200
    child = child_of(stack)
    with ThreadPoolExecutor(1) as pool:
        os.kill(child, signal.SIGSTOP)
        pending = pool.submit(stack.post, costly(1))
        for number in range(20):
            assert stack.post(order(number)).status == 200
        send(child, signal.SIGKILL)
        assert pending.result().status == 200
    assert stack.post(costly(2)).status == 200
    assert child_of(stack) != child
    logged = [json.loads(line) for line in stack.logs().splitlines()]
    assert "note.added" not in stack.logs()
    assert not [line for line in logged if line["level"] == "error"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_process_ends_with_its_receiver(stack: Stack, number: signal.Signals) -> None:
    assert stack.post(costly(0)).status == 200
    child = child_of(stack)
    stack.processes[0].send_signal(number)
    assert stack.processes[0].wait(300) == (0 if number == signal.SIGTERM else -number)
    until(lambda: not is_running(child))
