"""How much memory another process holds, and held at most meanwhile."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SAMPLE_S = 0.01


class Growth:
    """What a process grew by, at most, in MiB."""

    def __init__(self) -> None:
        self.mib = 0.0


def rss_mib(pid: int) -> float:
    """The resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"process {pid} holds no memory: it has ended")


@contextmanager
def growth(pid: int) -> Iterator[Growth]:
    """Sample a process's memory while the block runs."""
    found, before, ended = Growth(), rss_mib(pid), threading.Event()

    def sample() -> None:
        while not ended.wait(_SAMPLE_S):
            found.mib = max(found.mib, rss_mib(pid) - before)

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield found
    finally:
        ended.set()
        sampler.join()
        found.mib = max(found.mib, rss_mib(pid) - before)
