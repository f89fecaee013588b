"""Redis is a doorbell; a killed process loses nothing; many processes are as good as one."""

import os
import random
import signal
import statistics
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingest.local import process, valkey
from ingest.local.process import Program
from tests.acceptance.harness import Stack
from tests.support.deliver import order
from tests.support.waiting import end, until


class OwnRedis:
    """A Redis that a test may stop."""

    def __init__(self, home: Path) -> None:
        self._home = home
        (home / "logs").mkdir(parents=True)
        self._program: Program = valkey.program(home, home)
        self.url = valkey.url(home)
        self.start()

    def start(self) -> None:
        self._process: subprocess.Popen[bytes] = process.spawn(self._program)
        process.wait_until_ready(self._program, self._process, timeout_s=300)

    def stop(self, *, forget: bool = False) -> None:
        process.stop(self._program, self._process)
        if forget:
            for path in (self._home / "redis").rglob("*"):
                if path.is_file():
                    path.unlink()

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    found = OwnRedis(tmp_path / "own-redis")
    yield found
    found.thaw()
    found.stop()


@pytest.fixture
def stack(database_url: str, own_redis: OwnRedis, tmp_path: Path) -> Iterator[Stack]:
    folder = tmp_path / "stack"
    folder.mkdir()
    found = Stack(database_url, own_redis.url, folder, redispatch_after_s="3")
    yield found
    found.close()


def check_each_once(stack: Stack, count: int) -> None:
    """Every order was kept once, worked on once, and has its row."""
    assert stack.value("SELECT count(*) FROM events") == count
    assert stack.value("SELECT count(*) FROM jobs WHERE state = 'succeeded'") == count
    assert stack.value("SELECT count(*) FROM orders") == count


def test_a_thousand_events_three_times_each_over_sixteen_connections(stack: Stack) -> None:
    stack.receiver()
    stack.worker()
    stack.relay()
    bodies = [order(number) for number in range(1_000)] * 3
    random.Random(11).shuffle(bodies)
    answers = stack.post_all(bodies, connections=16)
    assert [answer.status for answer in answers] == [200] * 3_000
    stack.wait_until_idle()
    stats = stack.stats()
    assert stats.pop("backlog")["total"] == 0
    assert stats == {
        "deliveries": {"accepted": 3_000, "rejected": 0, "duplicates": 2_000, "conflicts": 0},
        "events": {"total": 1_000, "unhandled": 0},
        "jobs": {"pending": 0, "running": 0, "retrying": 0, "succeeded": 1_000, "dead": 0},
    }
    check_each_once(stack, 1_000)


def test_the_same_with_two_receivers_three_workers_and_two_relays(stack: Stack) -> None:
    for _ in range(2):
        stack.receiver()
        stack.relay()
    for _ in range(3):
        stack.worker()
    bodies = [order(number) for number in range(1_000)] * 3
    random.Random(12).shuffle(bodies)
    answers = stack.post_all(bodies, connections=16)
    assert {answer.status for answer in answers} == {200}
    stack.wait_until_idle()
    stats = stack.stats()
    assert stats["deliveries"]["accepted"] == 3_000
    assert stats["deliveries"]["duplicates"] == 2_000
    check_each_once(stack, 1_000)


def test_the_same_id_with_another_body_is_one_event_and_one_conflict(stack: Stack) -> None:
    stack.receiver()
    stack.worker()
    stack.relay()
    stack.post(order(1, total=10))
    stack.wait_until_idle()
    stack.post(order(1, total=99))
    stack.wait_until_idle()
    assert stack.stats()["deliveries"] == {
        "accepted": 2,
        "rejected": 0,
        "duplicates": 1,
        "conflicts": 1,
    }
    shown = stack.show("order.created:1")
    assert (shown["deliveries"], shown["duplicates"], shown["conflicts"]) == (2, 1, 1)
    (repeat,) = shown["repeats"]
    assert repeat["conflict"] is True
    assert '"total": 99' in repeat["body"]
    assert '"total": 10' in shown["body"]
    assert stack.value("SELECT total FROM orders") == 10


@pytest.mark.parametrize("outage", ["stopped", "frozen"])
def test_without_redis_answers_are_200_and_as_quick_and_it_comes_back_empty(
    stack: Stack, own_redis: OwnRedis, outage: str
) -> None:
    stack.receiver()
    stack.worker()
    stack.relay()
    before = stack.post_all([order(number) for number in range(300)])
    if outage == "stopped":
        own_redis.stop()
    else:
        own_redis.freeze()
    during = stack.post_all([order(number) for number in range(300, 600)])
    assert {answer.status for answer in before + during} == {200}
    # A loaded machine answers unevenly; who waits for Redis waits for a time-out of seconds.
    median_before, median_during = (
        statistics.median(answer.seconds for answer in answers) for answers in (before, during)
    )
    assert median_during < 10 * median_before + 0.1
    longest_before, longest_during = (
        max(answer.seconds for answer in answers) for answers in (before, during)
    )
    assert longest_during < 10 * longest_before + 5
    if outage == "stopped":
        own_redis.stop(forget=True)
        own_redis.start()
    else:
        own_redis.thaw()
    stack.wait_until_idle()
    check_each_once(stack, 600)


def test_a_redis_that_forgets_everything_costs_only_time(stack: Stack, own_redis: OwnRedis) -> None:
    from tests.support.redis_client import connect

    stack.receiver()
    answers = stack.post_all([order(number) for number in range(200)])
    assert {answer.status for answer in answers} == {200}
    with connect(own_redis.url) as client:
        assert client.llen("ingest:events")
        client.flushall()
    stack.worker()
    assert stack.unfinished() == 200
    stack.relay()
    stack.wait_until_idle()
    check_each_once(stack, 200)


def test_a_worker_killed_in_mid_load_loses_nothing(stack: Stack) -> None:
    stack.receiver()
    first = stack.worker()
    stack.relay()
    source = random.Random(13)
    for round_ in range(4):
        if first.poll() is not None:
            first = stack.worker()
        answers = stack.post_all(
            [order(number) for number in range(round_ * 250, round_ * 250 + 250)]
        )
        assert {answer.status for answer in answers} == {200}
        if round_ < 3:
            victim = first.pid if source.random() < 0.5 else _a_child(first.pid)
            os.kill(victim, signal.SIGKILL)
            if victim == first.pid:
                first.wait()
    started = [first]

    def is_idle() -> bool:
        """Whether all is done; a worker that has ended is started again, as supervisors do."""
        if started[-1].poll() is not None:
            started.append(stack.worker())
        return stack.unfinished() == 0

    until(is_idle, what="all is worked on")
    check_each_once(stack, 1_000)


def _a_child(pid: int) -> int:
    printed = until(
        lambda: subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
        ).stdout.split(),
        what="the worker has a child",
    )
    return int(printed[0])


def test_a_receiver_killed_in_mid_load_has_kept_what_it_answered(stack: Stack) -> None:
    first = stack.receiver()
    stack.receiver()
    stack.worker()
    stack.relay()
    answered: list[int] = []

    def post(number: int) -> None:
        try:
            if stack.post(order(number), port=stack.ports[number % len(stack.ports)]).status == 200:
                answered.append(number)
        except OSError:
            pass

    for number in range(400):
        post(number)
        if number == 100:
            first.kill()
    assert 200 < len(answered) < 400
    stack.wait_until_idle()
    kept = {row["order_id"] for row in stack.query("SELECT order_id FROM orders")}
    assert set(answered) <= kept


def test_a_receiver_told_to_end_answers_what_it_has_taken(
    make_stack: Callable[..., Stack],
) -> None:
    stack = make_stack()
    process_ = stack.receiver()
    for number in range(50):
        assert stack.post(order(number)).status == 200
    assert end(process_) == 0
    assert stack.value("SELECT count(*) FROM deliveries") == 50


def test_a_worker_told_to_end_finishes_what_it_runs(stack: Stack) -> None:
    stack.receiver()
    worker = stack.worker(worker_drain_s="300")
    stack.post_all([order(number) for number in range(300)])
    assert end(worker) == 0
    assert stack.value("SELECT count(*) FROM jobs WHERE state = 'running'") == 0
    assert stack.query("SELECT * FROM attempts") == []
