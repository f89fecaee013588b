"""How many system calls processes make, as the kernel counts them (`perf`, of linux-perf)."""

import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_EVENT = "raw_syscalls:sys_enter"
_BEGINS_WITHIN_S = 60.0


@dataclass(slots=True)
class Counter:
    """What was counted, once that has ended."""

    calls: int = 0
    is_counted: bool = False
    """Whether it could be: `perf` is there, and this user may ask the kernel."""


@contextmanager
def counted(pids: Sequence[int]) -> Iterator[Counter]:
    """Count the calls of processes, and of those that they start meanwhile."""
    counter = Counter()
    perf = shutil.which("perf")
    if perf is None:
        yield counter
        return
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        process = subprocess.Popen(
            [
                *(perf, "stat", "--field-separator", ",", "--output", str(output)),
                *("--event", _EVENT, "--pid", ",".join(map(str, pids))),
            ],
            stderr=subprocess.DEVNULL,
        )
        try:
            _await_begin(process)
            yield counter
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
        for line in output.read_text().splitlines() if output.exists() else ():
            count, _, rest = line.partition(",")
            if _EVENT in rest and count.isdecimal():
                counter.calls, counter.is_counted = int(count), True


def _await_begin(process: "subprocess.Popen[bytes]") -> None:
    """Wait until it counts, or has ended since it may not."""
    ends = time.monotonic() + _BEGINS_WITHIN_S
    while process.poll() is None and time.monotonic() < ends:
        with contextlib.suppress(OSError):
            for handle in Path(f"/proc/{process.pid}/fd").iterdir():
                if "perf_event" in str(handle.readlink()):
                    return
        time.sleep(0.02)
