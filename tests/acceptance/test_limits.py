"""Limits through real processes: two workers and a relay, commands and the console."""

import json
import shutil
from collections.abc import Callable

import pytest

from tests.acceptance import limited_processors
from tests.acceptance.harness import Stack
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
    stack.command("send", "order.created", "--count", str(EVENTS))
    until(
        lambda: ran(stack, "rated") == ran(stack, "few") == EVENTS,
        what="all have run",
        timeout_s=300,
    )
    most_at_once = stack.value(
        "SELECT max((SELECT count(*) FROM ran AS other WHERE other.processor = 'few'"
        " AND other.began <= ran.began AND other.ended > ran.began)) FROM ran"
        " WHERE processor = 'few'"
    )
    assert most_at_once <= 2
    spent_s = stack.value(
        "SELECT CAST(extract(epoch FROM max(started_at) - min(started_at)) AS float8) FROM jobs"
        " WHERE processor = 'rated'"
    )
    assert spent_s > EVENTS / 25 - 1.5
    assert stack.value("SELECT sum(attempt) FROM jobs") == 2 * EVENTS


def test_commands_set_and_show_limits(stack: Stack) -> None:
    stack.worker()
    until(lambda: stack.value("SELECT count(*) FROM limits") == 2, what="they are registered")
    shown = stack.command("processors", "limit", "few", "--concurrency", "1", "--reason", "slow")
    assert "at once: 0 now of 1\n" in shown
    assert "declared: concurrency=2, key_concurrency=1\n" in shown
    stack.command("processors", "limit", "few", "--key-rate", "5/s")
    record = json.loads(stack.command("processors", "limit", "few", "--json"))
    assert record["in_force"] == {
        "concurrency": 1,
        "rate": None,
        "key_concurrency": 1,
        "key_rate": "5/s",
    }
    assert "limits set\tby " in stack.command("processors", "show", "few")
    shown = stack.command("processors", "limit", "few", "--as-declared")
    assert "limits set" not in shown
    actions = stack.query("SELECT action, target, reason FROM actions ORDER BY id")
    assert [tuple(row.values()) for row in actions] == [
        ("limit", "few", "slow"),
        ("limit", "few", None),
        ("limit as declared", "few", None),
    ]
