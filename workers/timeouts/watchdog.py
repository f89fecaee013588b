"""The interpreter's watchdog for the calls of an event loop: it needs no GIL, which a call may
never let go of."""

import faulthandler
import time

_STDERR = 2


class Watchdog:
    """Ends the process at a time, as long as calls run. For one thread."""

    def __init__(self, *, slack_s: float) -> None:
        """Setting it starts a thread, so calls that end within `slack_s` seconds share one."""
        self._slack_s = slack_s
        self._at = 0.0

    def extend(self, at: float) -> None:
        """End the process no sooner than `at`, on the monotonic clock. To be called before a
        call."""
        if at > self._at:
            self._at = at + self._slack_s
            faulthandler.dump_traceback_later(self._at - time.monotonic(), exit=True, file=_STDERR)

    def rest(self) -> None:
        """Call it off: no call runs. Another part of the process may use the same watchdog next."""
        if self._at:
            faulthandler.cancel_dump_traceback_later()
            self._at = 0.0
