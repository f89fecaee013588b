"""A worker in shares: a slow processor with a queue of its own delays no other."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance import slow_processors
from tests.acceptance.harness import Stack
from tests.support.deliver import body, order
from tests.support.rows import execute
from tests.support.waiting import ENDS_WITHIN_S, end, until

MakeStack = Callable[..., Stack]
LIMIT_S = 300


@pytest.fixture
def stack(make_stack: MakeStack) -> Stack:
    """A stack whose workers have the two processors."""
    made = make_stack(processors="slow_processors", read_model="false", lease_s="3")
    shutil.copy(slow_processors.__file__, made.folder)
    execute(made.engine, "CREATE TABLE effects (what text, event text)")
    made.receiver()
    return made


def done(stack: Stack, what: str) -> int:
    return int(stack.value("SELECT count(*) FROM effects WHERE what = :what", what=what))


def running(stack: Stack) -> int:
    return int(stack.value("SELECT count(*) FROM jobs WHERE state = 'running'"))


def children(pid: int) -> set[int]:
    """The processes that a process has started, and theirs."""
    direct = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(child) for child in direct}.union(*(children(int(child)) for child in direct))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def flood(stack: Stack) -> None:
    """More slow jobs than the worker has processes."""
    stack.post_all([order(n) for n in range(12)])
    until(lambda: running(stack), what="a slow job runs", timeout_s=LIMIT_S)


def test_others_are_processed_while_every_slow_job_takes_for_ever(stack: Stack) -> None:
    worker = stack.worker(concurrency="2")
    flood(stack)
    for first in (100, 200, 300):
        stack.post_all([order(n) for n in range(first, first + 10)])
        until(
            lambda upto=12 + first // 10: done(stack, "fast") >= upto,  # type: ignore[misc]
            what="the live queue goes on",
            timeout_s=LIMIT_S,
        )
    assert done(stack, "slow") == 0
    (stack.folder / "released").touch()
    assert end(worker) == 0, stack.logs()[-3000:]
    assert running(stack) == 0


def test_a_processor_starts_processes_and_ends_them(stack: Stack) -> None:
    stack.worker()
    stack.post(body("tag.added", {"id": 1}))
    settled = "SELECT count(*) FROM jobs WHERE processor = 'starts' AND finished_at IS NOT NULL"
    until(lambda: stack.value(settled), what="the call has ended", timeout_s=LIMIT_S)
    assert done(stack, "starts") == 1, stack.logs()[-3000:]


def test_a_worker_that_is_killed_takes_all_of_its_shares_down(stack: Stack) -> None:
    worker = stack.worker(worker_processes="events=1,crm=2")
    until(lambda: len(children(worker.pid)) >= 7, what="all run", timeout_s=LIMIT_S)
    started = children(worker.pid)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    until(lambda: not any(map(is_alive, started)), what="none is left", timeout_s=LIMIT_S)


def test_a_share_that_ends_unasked_ends_the_worker(stack: Stack) -> None:
    worker = stack.worker()
    (share, *_) = map(
        int, Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
    )
    started = children(worker.pid)
    os.kill(share, signal.SIGKILL)
    assert _exit_code(worker) == 128 + signal.SIGKILL
    until(lambda: not any(map(is_alive, started)), what="none is left", timeout_s=LIMIT_S)


def _exit_code(worker: subprocess.Popen[bytes]) -> int:
    return worker.wait(ENDS_WITHIN_S)
