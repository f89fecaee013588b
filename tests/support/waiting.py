"""Waiting for a condition instead of sleeping."""

import time
from collections.abc import Callable
from subprocess import Popen
from typing import TypeVar

Found = TypeVar("Found")

ENDS_WITHIN_S = 600.0
"""How long a test waits for a process that was told to end. A worker takes 3 s when nothing else
runs, and up to `INGEST_WORKER_DRAIN_S` and 75 s longer."""


def until(condition: Callable[[], Found], *, what: str = "", timeout_s: float = 300) -> Found:
    """Call `condition` until what it returns is true, and return that."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what or condition}; last: {found!r}")
        time.sleep(0.02)


def end(process: Popen[bytes]) -> int:
    """Tell a process to end, and return its exit code."""
    process.terminate()
    return process.wait(ENDS_WITHIN_S)
