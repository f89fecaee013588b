"""What a call changes of the process does not reach the next slice."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workers.process_state import ProcessState
from workers.shutdown import Shutdown
from workers.timeouts.signals import Alarm, TimedOut


@pytest.fixture
def alarm() -> Iterator[Alarm]:
    before = signal.getsignal(signal.SIGALRM)
    found = Alarm(grace_s=60, shutdown=Shutdown(drain_s=30, clock=time.monotonic))
    found.install()
    yield found
    found.rest()
    signal.signal(signal.SIGALRM, before)


def own_alarm() -> None:
    """What a library does that has a time limit of its own, and forgets it."""
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.alarm(30)


def test_a_handler_of_a_library_does_not_spoil_the_next_time_limit(alarm: Alarm) -> None:
    with alarm(30):
        own_alarm()
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    with pytest.raises(TimedOut), alarm(0.05):
        time.sleep(60)


def wake_up() -> None:
    """As an event loop does that is not closed."""
    _, end = os.pipe()
    os.set_blocking(end, False)
    signal.set_wakeup_fd(end)


CHANGES: dict[str, Callable[[], object]] = {
    "SIGTERM ignored": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "SIGINT default": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    "SIGCHLD ignored": lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
    "SIGPIPE default": lambda: signal.signal(signal.SIGPIPE, signal.SIG_DFL),
    "SIGALRM blocked": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM}),
    "wake-up": wake_up,
    "folder": lambda: os.chdir("/"),
    "file mask": lambda: os.umask(0o777),
    "socket time-out": lambda: socket.setdefaulttimeout(0.001),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_a_call_changes_is_as_before_afterwards(
    alarm: Alarm, change: Callable[[], object]
) -> None:
    before = ProcessState.now()
    with alarm(30):
        change()
    alarm.rest()
    assert ProcessState.now() == before
    assert signal.set_wakeup_fd(-1) == -1


def test_so_it_is_after_a_call_that_fails(alarm: Alarm) -> None:
    before = ProcessState.now()
    with contextlib.suppress(ZeroDivisionError), alarm(30):
        os.umask(0o777)
        _ = 1 / 0
    alarm.rest()
    assert ProcessState.now() == before


def test_a_folder_that_is_gone_harms_nothing(
    alarm: Alarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    found = ProcessState.now()
    gone.rmdir()
    os.chdir("/")
    found.restore()


CHILD = """
import multiprocessing, signal, subprocess, sys, time
multiprocessing.process.current_process()._config["daemon"] = True
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
from workers import process_state
process_state.allow_children()
"""
STARTS = {
    "a program": """
program = subprocess.Popen(["sleep", "600"])
program.terminate()
assert program.wait() == -signal.SIGTERM
program = subprocess.Popen(["sleep", "600"])
program.send_signal(signal.SIGINT)
assert program.wait() == -signal.SIGINT
""",
    "a fork": """
child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
child.start()
child.terminate()
child.join()
assert child.exitcode == -signal.SIGTERM
""",
    "a pool": """
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(abs, [-1, -2]) == [1, 2]
""",
    "what is left over": """
child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
child.start()
process_state.end_children()
child.join()
assert child.exitcode == -signal.SIGTERM
""",
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_user_code_starts_processes_and_ends_them(start: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD + start], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_our_own_child_does_not_heed_a_signal_to_the_group() -> None:
    code = CHILD + "import os; os.kill(os.getpid(), signal.SIGTERM); print('goes on')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "goes on\n", done.stderr
