"""What user code shares with the process that runs it, as each call finds it.

A call may change what belongs to the whole process: signal handlers and the signal mask, the
wake-up descriptor, the working folder, the file mode mask, the default time-out of sockets. Left
so, it would change the calls of another processor, or our own work. So a process remembers how it
began, and each slice begins like that. The environment, the locale and filters of
warnings are left alone: what modules set there when they are first used is meant to stay."""

import contextlib
import multiprocessing
import multiprocessing.process
import os
import signal
import socket
from dataclasses import dataclass
from types import FrameType
from typing import Any

_NOT_HEEDED = (signal.SIGTERM, signal.SIGINT)
_WATCHED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGALRM,
    signal.SIGCHLD,
    signal.SIGPIPE,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


def heed_nothing(_number: int, _frame: FrameType | None) -> None:
    """Do nothing when a signal comes. A handler, because a program that is started from here would
    inherit an ignored signal, and its `terminate()` would do nothing."""


def allow_children() -> None:
    """Let user code start processes, in a child of the pool.

    The pool marks its children as daemons, and `multiprocessing` allows those no children. A fork
    gets the signals' default handlers back, and meanwhile none of them is lost."""
    current = multiprocessing.process.current_process()
    current._config["daemon"] = False  # type: ignore[attr-defined]  # noqa: SLF001
    for number in _NOT_HEEDED:
        signal.signal(number, heed_nothing)
    pool_child = os.getpid()
    os.register_at_fork(
        before=lambda: _mask(signal.SIG_BLOCK),
        after_in_parent=lambda: _mask(signal.SIG_UNBLOCK),
        after_in_child=lambda: _become_ordinary(pool_child),
    )


def _become_ordinary(pool_child: int) -> None:
    if os.getppid() == pool_child:
        for number in _NOT_HEEDED:
            signal.signal(number, signal.SIG_DFL)
    _mask(signal.SIG_UNBLOCK)


def _mask(how: int) -> None:
    signal.pthread_sigmask(how, _NOT_HEEDED)


def end_children() -> None:
    """End the processes that user code has started with `multiprocessing` and not ended."""
    for child in multiprocessing.active_children():
        child.terminate()


@dataclass(frozen=True, slots=True)
class ProcessState:
    """How a process was; to be made and used in its main thread."""

    handlers: dict[signal.Signals, Any]
    mask: frozenset[signal.Signals | int]
    folder: str | None
    file_mask: int
    socket_timeout: float | None

    @classmethod
    def now(cls) -> "ProcessState":
        """Return how this process is."""
        file_mask = os.umask(0o022)
        os.umask(file_mask)
        return cls(
            handlers={number: signal.getsignal(number) for number in _WATCHED},
            mask=frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
            folder=_folder(),
            file_mask=file_mask,
            socket_timeout=socket.getdefaulttimeout(),
        )

    def restore(self) -> None:
        """Make this process so again. Where nothing has changed, looking costs 16 µs of CPU."""
        for number, handler in self.handlers.items():
            # None: one that was not set from Python, and cannot be set again.
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        if frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, ())) != self.mask:
            signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)
        signal.set_wakeup_fd(-1)
        if socket.getdefaulttimeout() != self.socket_timeout:
            socket.setdefaulttimeout(self.socket_timeout)
        os.umask(self.file_mask)
        if self.folder is not None and _folder() != self.folder:
            with contextlib.suppress(OSError):  # it is gone; that is not this call's doing
                os.chdir(self.folder)


def _folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - a call's cost
    except FileNotFoundError:
        return None
