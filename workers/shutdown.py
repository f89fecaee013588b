"""The end of a worker process: what runs may go on for a while, and nothing else begins."""

import os
import signal
from collections.abc import Callable, Iterable
from math import inf
from types import FrameType

SIGNAL = signal.SIGUSR2
"""What a worker's main process sends to its children. Not SIGTERM, which a process group gets as
well: a child that stops working while its worker goes on would hand everything back."""


class Shutdown:
    """Whether this process has been told to end."""

    def __init__(self, *, drain_s: float, clock: Callable[[], float]) -> None:
        """Calls that run may go on for `drain_s` seconds; `clock` is monotonic, in seconds."""
        self._drain_s = drain_s
        self._clock = clock
        self.ends_at = inf
        """When calls are interrupted, by the clock. Infinity: the end has not begun."""

    @property
    def has_begun(self) -> bool:
        """Return whether no more work is to be claimed."""
        return self.ends_at != inf

    def begin(self) -> None:
        """Claim no more work from now on."""
        if not self.has_begun:
            self.ends_at = self._clock() + self._drain_s

    def on_signal(self, then: Callable[[], None]) -> None:
        """Begin when the signal comes, then call `then`. Main thread only."""

        def begin(_number: int, _frame: FrameType | None) -> None:
            self.begin()
            then()

        signal.signal(SIGNAL, begin)


def tell(children: Iterable[int]) -> None:
    """Tell processes, by their pids, that the worker ends."""
    for pid in children:
        try:
            os.kill(pid, SIGNAL)
        except ProcessLookupError:
            continue
