"""Between two sweeps the relay wakes what a rate allows."""

import threading
import time
from collections.abc import Sequence
from typing import Any, cast

import pytest

from ingest.errors import DispatchFailed
from workers.relay import loop
from workers.relay.sweep import Relay


class Looks:
    """A relay that is to look again so many seconds after each look, and is stopped after the
    last."""

    def __init__(self, *waits: float, error: Exception | None = None) -> None:
        self._waits: Sequence[float] = waits
        self._error = error
        self.stop = threading.Event()
        self.woke = 0
        self.look_at = self._next()

    def wake_limited(self) -> None:
        self.woke += 1
        self.look_at = self._next()
        if self._error is not None:
            raise self._error

    def _next(self) -> float | None:
        if not self._waits:
            self.stop.set()
            return None
        wait, *self._waits = self._waits
        return time.monotonic() + wait


def rest(looks: Looks, *, seconds: float) -> int:
    loop._rest(cast("Relay", cast("Any", looks)), looks.stop, seconds)
    return looks.woke


def test_it_wakes_as_often_as_a_rate_allows_the_next_start() -> None:
    assert rest(Looks(0.01, 0.0, 0.01), seconds=3_600.0) == 3


def test_what_is_due_after_the_next_sweep_is_left_to_it() -> None:
    assert rest(Looks(3_600.0), seconds=0.01) == 0
    assert rest(Looks(0.0, 3_600.0), seconds=0.01) == 1


def test_it_does_not_wake_after_it_is_stopped() -> None:
    looks = Looks(0.001, 0.001)
    looks.stop.set()
    assert rest(looks, seconds=3_600.0) == 0


@pytest.mark.parametrize("error", [DispatchFailed("Redis is away", reason="connection_refused")])
def test_what_fails_is_left_to_the_sweep(error: Exception) -> None:
    assert rest(Looks(0.0, error=error), seconds=3_600.0) == 1
