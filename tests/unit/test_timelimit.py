import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from workers.shutdown import Shutdown
from workers.timeouts.signals import Alarm, Interrupted, TimedOut


@pytest.fixture
def alarm() -> Iterator[Alarm]:
    before = signal.getsignal(signal.SIGALRM)
    found = Alarm(grace_s=60, shutdown=Shutdown(drain_s=30, clock=time.monotonic))
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
        time.sleep(3_600)
    assert time.monotonic() - began < 300


def test_catching_every_exception_does_not_help(alarm: Alarm) -> None:
    def careless() -> None:
        while True:
            with contextlib.suppress(Exception):
                time.sleep(0.01)

    with pytest.raises(TimedOut), alarm(0.05):
        careless()


def test_a_call_that_swallows_its_end_and_returns_has_ended_all_the_same(alarm: Alarm) -> None:
    def careless() -> None:
        with contextlib.suppress(BaseException):
            time.sleep(3_600)

    with pytest.raises(TimedOut), alarm(0.05):
        careless()
    with alarm(3_600):
        pass  # the next call is another


def test_the_error_of_a_call_that_swallowed_its_end_is_its_own(alarm: Alarm) -> None:
    def careless() -> None:
        try:
            time.sleep(3_600)
        except TimedOut:
            raise KeyError from None

    with pytest.raises(KeyError), alarm(0.05):
        careless()


def test_what_is_quick_enough_is_left_alone(alarm: Alarm) -> None:
    for _ in range(1_000):
        with alarm(60):
            pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def ending(drain_s: float) -> Alarm:
    """The alarm of a process that is told to end when it is sent SIGUSR2."""
    made = Alarm(grace_s=60, shutdown=Shutdown(drain_s=drain_s, clock=time.monotonic))
    made.install()
    return made


@pytest.fixture
def _signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGUSR2)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def outlast_the_end() -> None:
    """What a slow processor does when its worker is told to end."""
    signal.raise_signal(signal.SIGUSR2)
    time.sleep(60)


@pytest.mark.usefixtures("_signals")
def test_what_runs_when_the_worker_ends_is_interrupted_after_the_drain_time() -> None:
    alarm = ending(drain_s=0.05)
    with pytest.raises(Interrupted), alarm(60):
        outlast_the_end()
    with pytest.raises(Interrupted), alarm(60):
        pytest.fail("a call began after the drain time")
    alarm.rest()


@pytest.mark.usefixtures("_signals")
def test_a_call_that_begins_within_the_drain_time_has_what_is_left_of_it() -> None:
    alarm = ending(drain_s=3)
    signal.raise_signal(signal.SIGUSR2)
    with alarm(60):
        pass
    with pytest.raises(Interrupted), alarm(60):
        time.sleep(60)
    alarm.rest()


@pytest.mark.usefixtures("_signals")
def test_a_time_limit_that_ends_sooner_stays() -> None:
    alarm = ending(drain_s=60)
    with pytest.raises(TimedOut) as raised, alarm(0.05):
        outlast_the_end()
    assert not isinstance(raised.value, Interrupted)
    alarm.rest()


STUCK = """
import signal, time
from workers.shutdown import Shutdown
from workers.timeouts.signals import Alarm, TimedOut
alarm = Alarm(grace_s=0.5, shutdown=Shutdown(drain_s=0.2, clock=time.monotonic))
alarm.install()
{block}
print("still here")
"""


@pytest.mark.parametrize(
    "block",
    [
        # C code that holds the GIL, looks for no signal and takes hours.
        "with alarm(0.2): sum(range(10**12))",
        # The worker ends meanwhile.
        "with alarm(60):\n  signal.raise_signal(signal.SIGUSR2)\n  sum(range(10**12))",
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
        [sys.executable, "-c", STUCK.format(block=block)], capture_output=True, timeout=600
    )
    assert ended.returncode == 1
    assert b"still here" not in ended.stdout
    assert b"Timeout" in ended.stderr
    assert time.monotonic() - began < 300


def test_at_rest_nothing_is_ended() -> None:
    code = (
        "import time\nfrom workers.shutdown import Shutdown\n"
        "from workers.timeouts.signals import Alarm\n"
        "alarm = Alarm(grace_s=2, shutdown=Shutdown(drain_s=1, clock=time.monotonic))\n"
        "alarm.install()\nwith alarm(2): pass\nalarm.rest()\ntime.sleep(5)\nprint('still here')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=600)
    assert ended.stdout == b"still here\n"
