"""Processes that are started again when they end, as systemd or Docker would do it."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingest.local import process
from ingest.local.process import Program
from tests.support.waiting import ENDS_WITHIN_S

_RESTART_S = 0.5
_POLL_S = 0.02


class NotInTime(Exception):
    """What was waited for did not come."""


@dataclass
class Member:
    """A program that is to run."""

    program: Program
    process: subprocess.Popen[bytes]
    ended_at: float | None = None
    held_down: bool = False
    """Ended on purpose, not to be started again for now."""
    starts: int = 1

    @property
    def pid(self) -> int:
        """The pid of the process that runs or ran last."""
        return self.process.pid

    @property
    def is_running(self) -> bool:
        """Whether its process has not ended."""
        return self.process.poll() is None


class Fleet:
    """Tends its members whenever somebody waits; one thread, since the kernel ties a child's death
    signal to the thread that forked it."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.each_s: tuple[float, Callable[[], None]] | None = None
        """Something to be done every so many seconds, while somebody waits."""
        self._done_at = 0.0

    def start(self, program: Program) -> Member:
        """Start a program and wait until it is ready."""
        found = Member(program, process.spawn(program))
        self.members[program.name] = found
        process.wait_until_ready(program, found.process, timeout_s=60)
        return found

    def start_all(self, programs: Sequence[Program]) -> None:
        """Start programs at once, and wait until each is ready."""
        for program in programs:
            self.members[program.name] = Member(program, process.spawn(program))
        for program in programs:
            started = self.members[program.name].process
            process.wait_until_ready(program, started, timeout_s=120)

    def named(self, kind: str) -> list[Member]:
        """The members of a kind: those named `kind` or `kind-…`."""
        return [member for name, member in self.members.items() if name.partition("-")[0] == kind]

    def wait(self, seconds: float) -> None:
        """Let time pass, and start what has ended."""
        ends = time.monotonic() + seconds
        while True:
            self._tend()
            left = ends - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(_POLL_S, left))

    def until(
        self, condition: Callable[[], bool], *, what: str, timeout_s: float, every_s: float = 0.05
    ) -> float:
        """Wait for `condition`; returns the seconds that took.

        Raises:
            NotInTime: it did not come true.
        """
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > timeout_s:
                raise NotInTime(f"not within {timeout_s:g} s: {what}")
            self.wait(every_s)
        return time.monotonic() - began

    def hold_down(self, member: Member, number: signal.Signals = signal.SIGTERM) -> None:
        """End a member for now, and wait until it has ended."""
        member.held_down = True
        if member.is_running:
            member.process.send_signal(number)
        self.until(
            lambda: not member.is_running,
            what=f"{member.program.name} ends",
            timeout_s=ENDS_WITHIN_S,
        )

    def bring_back(self, member: Member) -> None:
        """Start a member again that was held down."""
        member.held_down = False
        member.ended_at = 0.0
        self._tend()

    def stop(self) -> None:
        """End everything, the last started first."""
        for member in reversed(self.members.values()):
            with contextlib.suppress(ProcessLookupError):
                member.process.send_signal(signal.SIGCONT)
            process.stop(member.program, member.process)

    def _tend(self) -> None:
        now = time.monotonic()
        if self.each_s is not None and now - self._done_at >= self.each_s[0]:
            self._done_at = now
            self.each_s[1]()
        for member in self.members.values():
            if member.held_down or member.is_running:
                continue
            if member.ended_at is None:
                member.ended_at = now
            if now - member.ended_at >= _RESTART_S:
                member.process = process.spawn(member.program)
                member.ended_at = None
                member.starts += 1


def send(pid: int, number: signal.Signals) -> None:
    """Signal a process, unless it has ended meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def children_of(pid: int) -> list[int]:
    """The pids of a process's children."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in found.split()]
