"""Ending a processor that takes too long: an exception first, the process's end if that does not
help."""

import faulthandler
import signal
import time
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import NoReturn, Protocol, Self

from workers.process_state import ProcessState
from workers.shutdown import Shutdown

_STDERR = 2
_AT_ONCE_S = 0.001
"""A timer of 0 would never ring."""


class TimedOut(BaseException):
    """Raised inside a processor when its time is up. No `Exception`, so that the processor's own
    `except Exception` does not keep it running."""


class Interrupted(TimedOut):
    """Raised instead when the worker ends: the attempt does not count."""


class TimeLimit(Protocol):
    """Limits what runs in a block."""

    def __call__(self, seconds: float) -> AbstractContextManager[object]:
        """Return a block that may take so long."""

    def rest(self) -> None:
        """Limit nothing until the next block."""


class Alarm:
    """The time limit of a worker process; main thread only.

    SIGALRM raises `TimedOut` at the next bytecode. C code that holds the GIL runs no bytecode,
    and a processor can swallow the exception: so the interpreter's watchdog, which needs no GIL,
    ends the process `grace_s` later. The attempt is then recorded by whoever finds the process
    gone."""

    def __init__(self, *, grace_s: float, shutdown: Shutdown) -> None:
        """`shutdown` ends calls early; its clock is `time.monotonic`."""
        self._grace_s = grace_s
        self._shutdown = shutdown
        self._seconds = 0.0
        self._is_running = False
        self._raised: type[BaseException] | None = None
        self._watched_until = 0.0
        self._manners: ProcessState | None = None

    def install(self) -> None:
        """Take the signal, and remember how the process is: each slice begins so. Once per
        process."""
        signal.signal(signal.SIGALRM, self._raise)
        self._shutdown.on_signal(self._shorten)
        self._manners = ProcessState.now()

    def __call__(self, seconds: float) -> Self:
        self._seconds = seconds
        return self

    def __enter__(self) -> Self:
        """Begin the call.

        Raises:
            Interrupted: the worker ends, and so late no call begins.
        """
        now = time.monotonic()
        if now >= self._shutdown.ends_at:
            raise Interrupted
        ends = now + self._seconds
        # Starting the watchdog starts a thread, so a run of short jobs shares one.
        if not ends + self._grace_s / 2 <= self._watched_until <= ends + self._grace_s:
            faulthandler.dump_traceback_later(
                self._seconds + self._grace_s, exit=True, file=_STDERR
            )
            self._watched_until = ends + self._grace_s
        signal.signal(signal.SIGALRM, self._raise)
        self._raised = None
        self._is_running = True
        signal.setitimer(signal.ITIMER_REAL, self._seconds)
        if self._shutdown.has_begun:
            self._shorten()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        """End the call.

        Raises:
            TimedOut, Interrupted: it was raised in the call, which swallowed it and returned: what
                it was in the midst of was left out.
        """
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._is_running = False
        if kind is None and self._raised is not None:
            raise self._raised

    def _shorten(self) -> None:
        """Let the call that runs end with the process's drain time, if its own ends later."""
        left = self._shutdown.ends_at - time.monotonic()
        if self._is_running and left < signal.getitimer(signal.ITIMER_REAL)[0]:
            signal.setitimer(signal.ITIMER_REAL, max(left, _AT_ONCE_S))
            faulthandler.dump_traceback_later(max(left, 0) + self._grace_s, exit=True, file=_STDERR)

    def _raise(self, _signal: int, _frame: FrameType | None) -> NoReturn:
        self._raised = Interrupted if time.monotonic() >= self._shutdown.ends_at else TimedOut
        raise self._raised

    def rest(self) -> None:
        """Stop the watchdog: no processor runs for now. What its calls have changed of the process
        is as before: once a slice, since looking costs 16 µs and a call's limit itself 8."""
        faulthandler.cancel_dump_traceback_later()
        if self._manners is not None:
            self._manners.restore()
        self._watched_until = 0.0
