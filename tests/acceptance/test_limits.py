"""Limits through real processes: two workers and a relay."""

import shutil
import time
from collections.abc import Callable

import pytest

from tests.acceptance import limited_processors
from tests.acceptance.harness import Stack
from tests.support.deliver import order
from tests.support.rows import execute
from tests.support.waiting import until

MakeStack = Callable[..., Stack]
EVENTS = 300


@pytest.fixture
def stack(make_stack: MakeStack) -> Stack:
    """A stack with limited processors."""
    made = make_stack(processors="limited_processors", read_model="false", concurrency="2")
    shutil.copy(limited_processors.__file__, made.folder)
    execute(
        made.engine,
        "CREATE TABLE ran (processor text, began timestamptz, ended timestamptz)",
    )
    return made


def ran(stack: Stack, processor: str) -> int:
    count: int = stack.value("SELECT count(*) FROM ran WHERE processor = :name", name=processor)
    return count


def test_two_workers_and_a_relay_keep_within_the_limits_and_use_them(stack: Stack) -> None:
    for start in (stack.receiver, stack.worker, stack.worker, stack.relay):
        start()
    began = time.monotonic()
    answers = stack.post_all([order(number) for number in range(EVENTS)])
    assert {answer.status for answer in answers} == {200}
    until(
        lambda: ran(stack, "rated") == ran(stack, "few") == EVENTS,
        what="all have run",
        timeout_s=300,
    )
    spent_s = time.monotonic() - began
    most_at_once = stack.value(
        "SELECT max((SELECT count(*) FROM ran AS other WHERE other.processor = 'few'"
        " AND other.began <= ran.began AND other.ended > ran.began)) FROM ran"
        " WHERE processor = 'few'"
    )
    assert most_at_once <= 2
    assert spent_s >= EVENTS / 25 - 1  # the last window of a second begins after the others
    assert stack.value("SELECT sum(attempt) FROM jobs") == 2 * EVENTS
