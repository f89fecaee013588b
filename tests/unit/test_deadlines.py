"""Time limits on threads: nobody is blamed unheard, and being told harms nobody else."""

import contextlib
import faulthandler
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Self

import pytest

from tests.support.waiting import until
from workers.shutdown import Shutdown
from workers.timeouts import signals
from workers.timeouts.deadlines import Deadlines, _raise_in
from workers.timeouts.signals import TimedOut

LATE_S = 10_000.0
GRACE_S = 5.0


def never() -> Shutdown:
    """A process that is not told to end."""
    return Shutdown(drain_s=60, clock=time.monotonic)


@pytest.fixture
def stuck() -> list[int]:
    """The threads that were given up."""
    return []


@pytest.fixture
def deadlines(stuck: list[int]) -> Iterator[Deadlines]:
    yield Deadlines(grace_s=GRACE_S, on_stuck=stuck.append, shutdown=never())
    faulthandler.cancel_dump_traceback_later()


class Limited:
    """A thread that does something in a block, and what it ended with."""

    def __init__(self, deadlines: Deadlines, seconds: float, work: Callable[[], object]) -> None:
        self._deadlines = deadlines
        self._seconds = seconds
        self._work = work
        self._began = threading.Event()
        self.told: TimedOut | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        assert self._began.wait(300)

    def _run(self) -> None:
        try:
            with self._deadlines(self._seconds):
                self._began.set()
                self._work()
        except TimedOut as told:
            self.told = told

    @property
    def was_told(self) -> bool:
        return self.told is not None

    def ended(self) -> bool:
        self.thread.join(300)
        return not self.thread.is_alive()


def loop() -> None:
    while True:
        pass


def look(deadlines: Deadlines, now: float) -> None:
    """What the watcher does, were it `now`."""
    with deadlines._changed:
        deadlines._look(now)


def test_a_loop_is_ended_when_its_time_is_up(deadlines: Deadlines, stuck: list[int]) -> None:
    limited = Limited(deadlines, 0.05, loop)
    assert limited.ended()
    assert limited.was_told
    assert stuck == []


def test_after_a_pause_of_the_whole_process_a_thread_is_told_before_it_is_given_up(
    deadlines: Deadlines, stuck: list[int]
) -> None:
    """As after a SIGSTOP: its time and its grace have passed, and it has heard of neither."""
    limited = Limited(deadlines, 60, loop)
    look(deadlines, time.monotonic() + LATE_S)
    assert limited.ended()
    assert limited.was_told
    assert stuck == []


def test_a_thread_is_given_up_only_when_the_grace_after_it_was_told_is_over(
    deadlines: Deadlines, stuck: list[int]
) -> None:
    go_on = threading.Event()
    limited = Limited(deadlines, 60, go_on.wait)  # in C, where no exception reaches it
    late = time.monotonic() + LATE_S
    for now in (late, late + GRACE_S - 0.01):
        look(deadlines, now)
        assert stuck == []
    look(deadlines, late + GRACE_S)
    assert stuck == [limited.thread.ident]
    go_on.set()
    assert limited.ended()
    assert limited.was_told


def test_a_call_that_swallows_its_end_and_returns_has_ended_all_the_same(
    deadlines: Deadlines, stuck: list[int]
) -> None:
    def careless() -> None:
        with contextlib.suppress(BaseException):
            loop()

    limited = Limited(deadlines, 60, careless)
    look(deadlines, time.monotonic() + LATE_S)
    assert limited.ended()
    assert limited.was_told
    assert stuck == []


def test_nobody_is_told_before_the_time_is_up(deadlines: Deadlines, stuck: list[int]) -> None:
    go_on = threading.Event()
    limited = Limited(deadlines, 60, lambda: until(go_on.is_set))
    look(deadlines, time.monotonic() + 59)
    go_on.set()
    assert limited.ended()
    assert not limited.was_told
    assert stuck == []


class Interrupted:
    """A thread that begins and ends blocks without a pause, and is told again and again that its
    time is up, wherever it is just then."""

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._times = 0
        self._goes_on = True
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        heard = False
        while self._goes_on:
            try:
                self._times += heard  # in here, where the next one is heard too
                heard = False
                while self._goes_on:
                    with self._deadlines(60):
                        pass
            except TimedOut:
                heard = True

    def interrupt(self) -> None:
        """Once, and wait until it was."""
        assert self._thread.ident is not None
        before = self._times
        _raise_in(self._thread.ident, TimedOut)
        until(lambda: self._times > before, what="it was interrupted")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._goes_on = False
        self._thread.join(300)


@contextlib.contextmanager
def switching_often() -> Iterator[None]:
    """Threads take turns at any bytecode, not every five milliseconds."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def test_a_thread_that_is_told_while_it_begins_or_ends_a_block_keeps_nobody_from_theirs(
    deadlines: Deadlines,
) -> None:
    go_on = threading.Event()
    first = Limited(deadlines, 60, go_on.wait)  # so that the watchdog need not be set each time
    with switching_often(), Interrupted(deadlines) as interrupted:
        for _ in range(50):
            interrupted.interrupt()
        # While it lives: another could be taken for it, and for who holds the lock.
        assert Limited(deadlines, 60, lambda: None).ended()
    go_on.set()
    assert first.ended()


def test_a_thread_is_interrupted_when_the_drain_time_of_its_worker_is_over() -> None:
    shutdown = Shutdown(drain_s=0.05, clock=time.monotonic)
    deadlines = Deadlines(grace_s=GRACE_S, on_stuck=lambda _thread: None, shutdown=shutdown)
    limited = Limited(deadlines, LATE_S, loop)
    shutdown.begin()
    assert limited.ended()
    assert isinstance(limited.told, signals.Interrupted)
    with pytest.raises(signals.Interrupted), deadlines(LATE_S):
        pytest.fail("a call began after the drain time")
    faulthandler.cancel_dump_traceback_later()
