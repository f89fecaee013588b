import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from workers.timeouts.signals import Alarm, TimedOut


@pytest.fixture
def alarm() -> Iterator[Alarm]:
    before = signal.getsignal(signal.SIGALRM)
    found = Alarm(grace_s=60)
    found.install()
    yield found
    found.rest()
    signal.signal(signal.SIGALRM, before)


def test_an_endless_loop_is_ended(alarm: Alarm) -> None:
    def loop() -> None:
        while True:
            pass

    with pytest.raises(TimedOut), alarm(0.05):
        loop()


def test_a_sleep_is_ended(alarm: Alarm) -> None:
    began = time.monotonic()
    with pytest.raises(TimedOut), alarm(0.05):
        time.sleep(30)
    assert time.monotonic() - began < 5


def test_catching_every_exception_does_not_help(alarm: Alarm) -> None:
    def careless() -> None:
        while True:
            with contextlib.suppress(Exception):
                time.sleep(0.01)

    with pytest.raises(TimedOut), alarm(0.05):
        careless()


def test_what_is_quick_enough_is_left_alone(alarm: Alarm) -> None:
    for _ in range(1_000):
        with alarm(0.05):
            pass
    time.sleep(0.1)


STUCK = """
import signal
from workers.timeouts.signals import Alarm, TimedOut
alarm = Alarm(grace_s=0.5)
alarm.install()
{block}
print("still here")
"""


@pytest.mark.parametrize(
    "block",
    [
        # C code that holds the GIL, looks for no signal and takes hours.
        "with alarm(0.2): sum(range(10**12))",
        # A loop that swallows what would end it.
        (
            "while True:\n  try:\n    with alarm(0.2):\n      while True: pass\n"
            "  except TimedOut:\n    signal.setitimer(signal.ITIMER_REAL, 0)\n    while True: pass"
        ),
    ],
)
def test_what_no_exception_can_end_ends_with_its_process(block: str) -> None:
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", STUCK.format(block=block)], capture_output=True, timeout=30
    )
    assert ended.returncode == 1
    assert b"still here" not in ended.stdout
    assert b"Timeout" in ended.stderr
    assert time.monotonic() - began < 10


def test_at_rest_nothing_is_ended() -> None:
    code = (
        "import time\nfrom workers.timeouts.signals import Alarm\nalarm = Alarm(grace_s=0.1)\n"
        "alarm.install()\nwith alarm(0.1): pass\nalarm.rest()\ntime.sleep(1)\nprint('still here')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30)
    assert ended.stdout == b"still here\n"
