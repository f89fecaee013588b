"""How fast rows are read, where an operator limits it."""

import time
from collections.abc import Callable


class RowRate:
    """Keeps to so many rows a second."""

    def __init__(
        self,
        rate: float | None,
        *,
        read: int = 0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """`rate` is in rows a second; None: no limit. `read` rows were read before: an erasure that
        goes on does not wait for them. `clock` is monotonic, in seconds."""
        self._rate = rate
        self._before = read
        self._clock = clock
        self._sleep = sleep
        self._began = clock()

    def wait(self, read: int) -> None:
        """Wait until so many rows may have been read in all."""
        if self._rate is None:
            return
        ahead_s = (read - self._before) / self._rate - (self._clock() - self._began)
        if ahead_s > 0:
            self._sleep(ahead_s)
