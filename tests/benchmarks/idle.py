"""What a pipeline costs that has nothing to do: `ingest up`, without a terminal or a page open.

Meanwhile loops of the lowest priority keep the cores awake. Where a virtual machine sleeps, each
wake-up costs several times as much, and how much differs from minute to minute: the same release
used 12 and 16 % of a core so.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.acceptance.up import Up

BUDGET = 0.5
"""Per cent of a core that all processes together are to use."""
_KINDS = {
    "workers relay": "relay",
    "workers worker": "worker",
    "ingest console": "console",
    "ingest serve": "receiver",
    "ingest up": "up",
    "postgres": "PostgreSQL",
    "valkey": "Valkey",
}


_LOOP = """
import os
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
while True:
    pass
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """What the processes of a kind used."""

    kind: str
    percent: float
    """Of one core."""


def measure(*, settle_s: float, seconds: float) -> Iterator[Idle]:
    """Start `ingest up`, let it come to rest for `settle_s` seconds, then measure for `seconds`.

    Raises:
        RuntimeError: a process that is to be there is not.
    """
    with tempfile.TemporaryDirectory(prefix="ingest-idle-") as folder:
        up = Up(Path(folder))
        loops = [
            subprocess.Popen([sys.executable, "-c", _LOOP]) for _ in range(os.cpu_count() or 1)
        ]
        try:
            up.wait_until_ready()
            time.sleep(settle_s)
            before, began = _by_process(up), time.monotonic()
            time.sleep(seconds)
            after, took_s = _by_process(up), time.monotonic() - began
        finally:
            up.end()
            for loop in loops:
                loop.kill()
                loop.wait()
    spent: dict[str, float] = dict.fromkeys(_KINDS.values(), 0.0)
    for process, used_s in after.items():
        spent[process.kind] = spent.get(process.kind, 0.0) + used_s - before.get(process, 0.0)
    if missing := spent.keys() - {process.kind for process in after}:
        raise RuntimeError(f"not running: {', '.join(sorted(missing))}")
    for kind, used_s in {**spent, "all": sum(spent.values())}.items():
        yield Idle(kind=kind, percent=100 * used_s / took_s)


class _Process(NamedTuple):
    pid: int
    started: int
    """In the system's ticks: an id may be used again."""
    kind: str


def _by_process(up: Up) -> dict[_Process, float]:
    """CPU seconds so far, those of children that have ended included."""
    used: dict[_Process, float] = {}
    for pid, command in {**up.family(), up.process.pid: "ingest up"}.items():
        with contextlib.suppress(OSError):  # it has ended
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ended_s = (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
            used[_Process(pid, int(fields[19]), _kind(command))] = _cpu_s(pid) + ended_s
    return used


def _kind(command: str) -> str:
    return next((kind for part, kind in _KINDS.items() if part in command), "other")


def _cpu_s(pid: int) -> float:
    """By the clock of the process, in nanoseconds: `stat` counts ticks of 10 ms, and most of these
    run for less than one at a time. Its number is Linux's: CPUCLOCK_SCHED of all threads."""
    return time.clock_gettime((~pid << 3) | 2)
