"""Start a program that ends with this process, wait until it is ready, and stop it."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ingest.local.errors import EmbeddedError
from ingest.local.identity import AS_WE_ARE, Identity

_PR_SET_PDEATHSIG = 1
_LOG_LIMIT = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """How to start and stop one child process, and how to tell that it is ready."""

    name: str
    command: Sequence[str]
    log: Path
    """Receives stdout and stderr."""
    ready: Callable[[int], bool] = field(default=lambda _pid: True)
    """Returns whether the process with this pid is ready."""
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 30
    env: Mapping[str, str] | None = None
    """The whole environment. None: the environment of this process."""
    identity: Identity = AS_WE_ARE
    pass_fds: tuple[int, ...] = ()


def spawn(program: Program, *, inherit: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
    """Start `program` in a session of its own, so that Ctrl-C reaches only this process.

    Call it from the main thread: the kernel ties the death signal to the thread that forks. The
    child gets the file descriptors in `inherit` besides those of the program.
    """
    _rotate(program.log)
    with program.log.open("ab") as log:
        return subprocess.Popen(
            program.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=program.env,
            start_new_session=True,
            pass_fds=(*program.pass_fds, *inherit),
            preexec_fn=_before_exec(program),
            user=program.identity.uid,
            group=program.identity.gid,
            extra_groups=None if program.identity.uid is None else [],
        )


def _never() -> bool:
    return False


def wait_until_ready(
    program: Program,
    process: subprocess.Popen[bytes],
    *,
    timeout_s: float,
    is_stopping: Callable[[], bool] = _never,
) -> None:
    """Wait until `program` is ready, or `is_stopping` says that it is wanted no more.

    Raises:
        EmbeddedError: it ended, or took longer than `timeout_s` seconds. The message quotes the
            end of its log.
    """
    deadline = time.monotonic() + timeout_s
    while not program.ready(process.pid) and not is_stopping():
        ended = process.poll()
        if ended is not None or time.monotonic() > deadline:
            what = f"ended with {describe_exit(ended)}" if ended is not None else "is not ready"
            raise EmbeddedError(
                f"{program.name} {what}. Its log {program.log} ends with:\n{_tail(program.log)}",
                reason="not_started",
            )
        time.sleep(0.01)


def stop(program: Program, process: subprocess.Popen[bytes]) -> None:
    """Stop the process with its stop signal; kill it when that takes too long."""
    if process.poll() is None:
        process.send_signal(program.stop_signal)
        try:
            process.wait(program.stop_timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def describe_exit(code: int) -> str:
    """Return an exit code in words."""
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


class Guard:
    """A process that ends our children after us, where the kernel sends no death signal (macOS)."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _GUARD],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def watch(self, children: Sequence[tuple[int, signal.Signals]]) -> None:
        """Set the children to end: pairs of pid and signal. They replace the earlier ones."""
        pairs = " ".join(f"{pid}:{int(number)}" for pid, number in children)
        assert self._process.stdin is not None
        self._process.stdin.write(f"{pairs}\n".encode())
        self._process.stdin.flush()


def _before_exec(program: Program) -> Callable[[], None] | None:
    enter = program.identity.enter
    if sys.platform != "linux":
        return enter
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def hook() -> None:
        if enter is not None:
            enter()
        # Comes after the change of identity, which clears the death signal.
        libc.prctl(_PR_SET_PDEATHSIG, int(program.stop_signal), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return hook


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        shutil.move(log, log.with_suffix(".old.log"))


def _tail(log: Path) -> str:
    return log.read_bytes()[-2000:].decode(errors="replace").strip()


_GUARD = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
pairs = ""
for line in sys.stdin:
    pairs = line
for pair in pairs.split():
    pid, number = map(int, pair.split(":"))
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
"""
