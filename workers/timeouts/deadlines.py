"""Ending processors that take too long on threads, where no signal arrives.

A watcher raises `TimedOut` in the thread whose time is up. That reaches it at its next bytecode:
not while it waits in C, for a socket without a time-out, say. When it has not ended `grace_s`
later, the process must; whoever is told first writes down over which job. A call that holds the GIL
stops the watcher too, so the interpreter's own watchdog, which needs none, stands behind it.
"""

import ctypes
import faulthandler
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

from workers.shutdown import Shutdown
from workers.timeouts.signals import Interrupted, TimedOut

_LOOK_S = 0.25
_STDERR = 2


class _Limit:
    """One call's time."""

    def __init__(self, deadlines: "Deadlines", seconds: float) -> None:
        self._deadlines = deadlines
        self._seconds = seconds
        self.ends = 0.0
        self.told_at: float | None = None
        self.told: type[BaseException] | None = None
        """What was raised in its thread."""

    def __enter__(self) -> None:
        now = time.monotonic()
        if now >= self._deadlines.shutdown.ends_at:
            raise Interrupted
        self.ends = now + self._seconds
        self._deadlines.begin(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        """End the call.

        Raises:
            TimedOut, Interrupted: the call was told to end, and returned all the same.
        """
        self._deadlines.forget()
        if kind is None and self.told is not None:
            raise self.told


class Deadlines:
    """The time limits of a process's threads."""

    def __init__(
        self, *, grace_s: float, on_stuck: Callable[[int], None], shutdown: Shutdown
    ) -> None:
        """`on_stuck` gets the identity of a thread that cannot be ended; it ends the process.
        `shutdown` ends calls early; its clock is `time.monotonic`."""
        self.shutdown = shutdown
        self._grace_s = grace_s
        self._on_stuck = on_stuck
        self._limits: dict[int, _Limit] = {}
        # Taken by itself: the `with` of a Condition is Python code, and one that `TimedOut`
        # interrupts never gives its lock back.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._pause = threading.Event()  # never set; time.sleep fails under libfaketime
        self._watcher: threading.Thread | None = None
        self._watchdog_at = 0.0

    def __call__(self, seconds: float) -> AbstractContextManager[object]:
        """Return a block of this thread that may take so long."""
        return _Limit(self, seconds)

    def rest(self) -> None:
        """Do nothing: the last block that ends calls the watchdog off."""

    def begin(self, limit: _Limit) -> None:
        """Watch this thread."""
        with self._lock:
            self._limits[threading.get_ident()] = limit
            self._set_watchdog(limit.ends + 2 * self._grace_s)
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, name="deadlines", daemon=True)
                self._watcher.start()
            self._changed.notify()

    def forget(self) -> None:
        """Watch this thread no more. What it was told and has not yet seen is taken back."""
        me = threading.get_ident()
        with self._lock:
            limit = self._limits.pop(me, None)
            if limit is not None and limit.told_at is not None:
                _raise_in(me, None)
            if not self._limits:
                faulthandler.cancel_dump_traceback_later()
                self._watchdog_at = 0.0

    def _watch(self) -> None:
        while True:
            with self._lock:
                self._changed.wait_for(lambda: self._limits)
                self._look(time.monotonic())
            self._pause.wait(_LOOK_S)

    def _look(self, now: float) -> None:
        for thread, limit in self._limits.items():
            if limit.told_at is None:
                if now >= min(limit.ends, self.shutdown.ends_at):
                    limit.told_at = now
                    limit.told = TimedOut if now >= limit.ends else Interrupted
                    _raise_in(thread, limit.told)
            elif now >= limit.told_at + self._grace_s:
                self._on_stuck(thread)

    def _set_watchdog(self, at: float) -> None:
        """Before the call, which may never let go of the GIL. Setting it starts a thread, so calls
        that begin about the same time share one."""
        if at > self._watchdog_at:
            self._watchdog_at = at + self._grace_s / 2
            faulthandler.dump_traceback_later(
                self._watchdog_at - time.monotonic(), exit=True, file=_STDERR
            )


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Let `kind` be raised in a thread at its next bytecode; None takes that back."""
    raised = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)
