"""Async processors in real worker processes: what is left of calls when their process dies."""

import os
import shutil
import signal
from collections.abc import Callable

import pytest

from tests.acceptance import coroutine_processors
from tests.acceptance.harness import Stack
from tests.support.deliver import body, deliver, order
from tests.support.rows import execute
from tests.support.waiting import until

MakeStack = Callable[..., Stack]
LIMIT_S = 300


@pytest.fixture
def stack(make_stack: MakeStack) -> Stack:
    """A stack whose workers have the async processors, in one process."""
    made = make_stack(
        processors="coroutine_processors", read_model="false", concurrency="1", lease_s="5"
    )
    shutil.copy(coroutine_processors.__file__, made.folder)
    execute(made.engine, "CREATE TABLE effects (what text, event text, attempt int)")
    made.receiver()
    return made


def states(stack: Stack) -> dict[str, int]:
    found = stack.query("SELECT state, count(*) AS jobs FROM jobs GROUP BY state")
    return {row["state"]: row["jobs"] for row in found}


def test_calls_in_flight_when_their_process_is_killed_have_their_effects_once(
    stack: Stack,
) -> None:
    (stack.folder / "stall").touch()
    begun = stack.folder / "begun"
    begun.touch()
    # Past the receiver, whose hints would come in several messages: the relay sends one.
    deliver(stack.environment["INGEST_DATABASE_URL"], [order(n) for n in range(60)])
    stack.worker()
    stack.relay()
    until(
        lambda: len(begun.read_text().splitlines()) >= 30,
        what="thirty calls are in flight",
        timeout_s=LIMIT_S,
    )
    (victim,) = {int(line.split()[0]) for line in begun.read_text().splitlines()}
    os.kill(victim, signal.SIGKILL)
    (stack.folder / "stall").unlink()
    until(lambda: states(stack) == {"succeeded": 60}, what="all is done", timeout_s=LIMIT_S)
    assert stack.value("SELECT count(*) FROM effects") == 60
    assert stack.value("SELECT count(DISTINCT event) FROM effects") == 60
    assert stack.value("SELECT count(*) FROM attempts WHERE outcome = 'released'") == 30
    spent = "SELECT outcome, error_type, error_message FROM attempts WHERE outcome <> 'released'"
    assert stack.query(spent) == []
    assert len(begun.read_text().splitlines()) == 90


@pytest.mark.parametrize("note", ["blocks", "holds", "swallows"])
def test_a_call_that_cannot_be_ended_takes_its_process_along_and_alone_is_blamed(
    stack: Stack, note: str
) -> None:
    def conversation(number: int, **more: str) -> bytes:
        return body("conversation.created", {"conversation_id": number, **more})

    stack.worker(attempt_timeout_s="5")  # the neighbours have as long
    stack.relay()
    stack.post_all([conversation(n) for n in range(4)] + [conversation(4, note=note)])
    stack.post_all([conversation(n) for n in range(5, 10)])
    until(
        lambda: states(stack) == {"succeeded": 9, "dead": 1},
        what="the one is dead and the others are done",
        timeout_s=LIMIT_S,
    )
    dead = stack.query(
        "SELECT e.event_id, j.failures FROM jobs j JOIN events e ON e.id = j.event"
        " WHERE j.state = 'dead'"
    )
    assert dead == [{"event_id": "conversation.created:4", "failures": 2}]
    assert stack.value("SELECT max(failures) FROM jobs WHERE state = 'succeeded'") == 0
    assert stack.value("SELECT count(*) FROM effects") == 9
    if note == "blocks":
        assert '"loop_blocked"' in stack.logs()
