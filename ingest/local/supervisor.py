"""Start child processes in order, restart them with a back-off, stop them in reverse order."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

from ingest.local import process
from ingest.local.process import Guard, Program

_BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_STEADY_S = 30.0
"""A child that ran this long is restarted after the shortest pause."""
_POLL_S = 1.0


class StopRequested(Exception):
    """A signal asked this process to stop while it started."""


class _Child:
    """A program, its process, and the time of its next restart."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.failures = 0
        self.restart_at: float | None = None
        self.is_replaced = False
        """Whether it was told to end, so that a new one takes its place."""


class Supervisor:
    """Owns the children of one process. Use it from the main thread only."""

    def __init__(self, *, say: Callable[[str], None], lock_fd: int) -> None:
        """`say` prints a message. Children inherit `lock_fd`, so its lock lasts as long as they
        run."""
        self._say = say
        self._lock_fd = lock_fd
        self._stages: list[list[_Child]] = []
        self._signals = 0
        self._signals_until_stop = 1
        self._wake_read, self._wake_write = os.pipe()
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)
        self._guard = None if sys.platform == "linux" else Guard()

    def take_signals(self) -> None:
        """Let SIGTERM, SIGINT and SIGHUP end `watch`, and a child's death wake it."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    @property
    def is_stopping(self) -> bool:
        """Return whether a signal asked this process to stop."""
        return self._signals > 0

    def start(self, *stages: Sequence[Program], timeout_s: float = 60) -> None:
        """Start the programs of all `stages` and wait until they are ready.

        The programs of a stage are stopped together, the last stage first.

        Raises:
            EmbeddedError: a program ended or took too long.
            StopRequested: a signal came meanwhile.
        """
        self.heed_signals()
        started = [[_Child(program) for program in stage] for stage in stages]
        self._stages += started
        children = [child for stage in started for child in stage]
        for child in children:
            self._spawn(child)
        for child in children:
            assert child.process is not None
            process.wait_until_ready(
                child.program,
                child.process,
                timeout_s=timeout_s,
                is_stopping=lambda: self.is_stopping,
            )
        self.heed_signals()

    def heed_signals(self) -> None:
        """Raise `StopRequested` if a signal asked this process to stop."""
        if self.is_stopping:
            raise StopRequested

    def watch(self, each_second: Callable[[], None]) -> None:
        """Restart children that end, until a signal comes."""
        while not self.is_stopping:
            self._sleep(_POLL_S)
            for stage in self._stages:
                for child in stage:
                    self._check(child)
            each_second()

    def replace(self, programs: Sequence[Program]) -> None:
        """Start children of these programs, each when the one of its name has ended. Those of new
        names are the first to be stopped."""
        for program in programs:
            child = self._named(program.name)
            if child is None:
                child = _Child(program)
                self._stages.append([child])
                self._spawn(child)
            elif child.process is not None and child.process.poll() is None:
                child.is_replaced = True
                child.process.send_signal(child.program.stop_signal)
            else:
                self._spawn(child)

    def stop(self) -> None:
        """Stop all children, the last started stage first. Another signal kills them at once; an
        impatient user's further ones while they started do not."""
        self._signals_until_stop = max(self._signals, 1)
        while self._stages:
            stage = self._stages.pop()
            for child in stage:
                if child.process is not None and child.process.poll() is None:
                    child.process.send_signal(child.program.stop_signal)
            for child in stage:
                self._await_end(child)

    def _named(self, name: str) -> _Child | None:
        children = (child for stage in self._stages for child in stage)
        return next((child for child in children if child.program.name == name), None)

    def _spawn(self, child: _Child) -> None:
        child.process = process.spawn(child.program, inherit=(self._lock_fd,))
        child.started_at = time.monotonic()
        child.restart_at = None
        self._tell_guard()

    def _check(self, child: _Child) -> None:
        """Schedule the restart of a child that ended; start it when its pause is over."""
        now = time.monotonic()
        if child.restart_at is not None:
            if now >= child.restart_at and not self.is_stopping:
                self._spawn(child)
                assert child.process is not None
                self._say(f"{child.program.name} restarted (pid {child.process.pid})")
            return
        assert child.process is not None
        code = child.process.poll()
        if code is None:
            return
        if child.is_replaced:
            child.is_replaced, child.failures = False, 0
            self._spawn(child)
            return
        if now - child.started_at >= _STEADY_S:
            child.failures = 0
        pause = _BACKOFF_S[min(child.failures, len(_BACKOFF_S) - 1)]
        child.failures += 1
        child.restart_at = now + pause
        self._say(
            f"{child.program.name} ended ({process.describe_exit(code)}); "
            f"restarting in {pause:g} s; see {child.program.log}"
        )

    def _await_end(self, child: _Child) -> None:
        if child.process is None:
            return
        deadline = time.monotonic() + child.program.stop_timeout_s
        while child.process.poll() is None:
            if time.monotonic() > deadline or self._signals > self._signals_until_stop:
                child.process.kill()
                child.process.wait()
                return
            self._sleep(0.05)

    def _sleep(self, seconds: float) -> None:
        """Sleep for `seconds`, or until a signal comes or a child ends."""
        readable, _, _ = select.select([self._wake_read], [], [], seconds)
        if readable:
            os.read(self._wake_read, 1024)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1

    def _tell_guard(self) -> None:
        if self._guard is not None:
            self._guard.watch(
                [
                    (child.process.pid, child.program.stop_signal)
                    for stage in self._stages
                    for child in stage
                    if child.process is not None
                ]
            )
