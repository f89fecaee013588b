"""A processor's time limit in a test."""

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import NoReturn

from workers.timeouts.signals import TimedOut


class CallLimit:
    """Raises `TimedOut` in a call that takes too long. It works in the main thread; elsewhere no
    signal arrives, and nothing is limited."""

    def __call__(self, seconds: float) -> AbstractContextManager[object]:
        """Return a block that may take so long."""
        if threading.current_thread() is not threading.main_thread():
            return nullcontext()
        return _alarm(seconds)

    def rest(self) -> None:
        """Do nothing: the limit ends with its block."""


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Limit a block. A timer that ran before, such as that of a test's own limit, runs on after."""
    handler = signal.signal(signal.SIGALRM, _raise)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left, interval)
        signal.signal(signal.SIGALRM, handler)


def _raise(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise TimedOut
