"""The interpreter's watchdog for calls beside each other: it needs no GIL, which a call may never
let go of."""

import faulthandler
import threading
from collections.abc import Collection

_STDERR = 2


class Watchdog:
    """Ends the process unless it is set anew in time, as long as calls run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_set = False

    def set(self, running: Collection[object], *, seconds: float) -> None:
        """End the process in `seconds`, if anything runs."""
        with self._lock:
            if running:
                faulthandler.dump_traceback_later(seconds, exit=True, file=_STDERR)
                self._is_set = True

    def rest(self) -> None:
        """Call it off. To be called when the last call ends, before another part of the process
        uses the same watchdog."""
        with self._lock:
            if self._is_set:
                faulthandler.cancel_dump_traceback_later()
                self._is_set = False
