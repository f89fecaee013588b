"""What a pipeline costs that has nothing to do: `ingest up`, without a terminal or a page open."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """What the processes of a kind used."""

    kind: str
    percent: float
    """Of one core."""


def measure(*, settle_s: float, seconds: float) -> Iterator[Idle]:
    """Start `ingest up`, let it come to rest for `settle_s` seconds, then measure for `seconds`."""
    with tempfile.TemporaryDirectory(prefix="ingest-idle-") as folder:
        up = Up(Path(folder)).wait_until_ready()
        try:
            time.sleep(settle_s)
            before, began = _by_process(up), time.monotonic()
            time.sleep(seconds)
            after, took_s = _by_process(up), time.monotonic() - began
        finally:
            up.end()
    spent = {
        (kind, pid): used_s - before.get((kind, pid), 0.0) for (kind, pid), used_s in after.items()
    }
    totals = {
        kind: sum(used_s for (of_kind, _), used_s in spent.items() if of_kind == kind)
        for kind in _KINDS.values()
    }
    for kind, used_s in {**totals, "all": sum(spent.values())}.items():
        yield Idle(kind=kind, percent=100 * used_s / took_s)


def _by_process(up: Up) -> dict[tuple[str, int], float]:
    """CPU seconds so far, by kind of process and process id."""
    commands = {**up.family(), up.process.pid: "ingest up"}
    return {(_kind(command), pid): _cpu_s(pid) for pid, command in commands.items()}


def _kind(command: str) -> str:
    return next((kind for part, kind in _KINDS.items() if part in command), "other")


def _cpu_s(pid: int) -> float:
    """What the scheduler counted, to the nanosecond: `stat` counts ticks of 10 ms, and most of
    these processes run for less than one at a time."""
    try:
        tasks = [task / "schedstat" for task in Path(f"/proc/{pid}/task").iterdir()]
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9
    except OSError:  # it has ended
        return 0.0
