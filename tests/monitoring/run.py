"""One fault at a time, or several at once: what fires, how soon, and how soon it is over."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from tests.monitoring.catalogue import PREFIX, Fault
from tests.monitoring.world import World
from tests.support.fleet import NotInTime

_LOOK_EVERY_S = 0.25
_RECOVERS_WITHIN_S = 1_200.0
"""Ten times what the slowest one takes."""
_PATIENCE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An alert, and the fault that set it off."""

    alert: str
    """Without the prefix that all have."""
    fault: str
    fires_s: float
    """From the fault to the alert."""
    recovers_s: float
    """From the mending until it fired no more."""
    company: tuple[str, ...]
    """The alerts that fired beside it."""


class Runner:
    """Makes faults in one world."""

    def __init__(self, world: World, *, say: Callable[[str], None]) -> None:
        """`say` tells a person how it goes."""
        self._world = world
        self._say = say

    def run(self, faults: Sequence[Fault]) -> list[Row]:
        """Make faults at once; return a row for each alert that must fire.

        Raises:
            NotInTime: an alert did not fire, or did not recover.
            AssertionError: another alert fired.
        """
        must = {alert for fault in faults for alert in fault.alerts}
        watch = _Watch(self._world, must | {alert for fault in faults for alert in fault.may})
        with ExitStack() as broken:
            for fault in faults:
                self._say(f"{fault.what}: {', '.join(fault.alerts)}")
                broken.enter_context(fault.strike(self._world))
            watch.until(must, within_s=_PATIENCE * max(fault.usual_s for fault in faults))
            self._say("mended")
            watch.mended()
        watch.until(set(), within_s=_RECOVERS_WITHIN_S)
        return [
            Row(
                alert=alert,
                fault=fault.what,
                fires_s=watch.fires_s[alert],
                recovers_s=watch.recovers_s[alert],
                company=tuple(sorted(watch.fires_s.keys() - {alert})),
            )
            for fault in faults
            for alert in fault.alerts
        ]


class _Watch:
    """Looks at what fires, and when each alert began to and ceased."""

    def __init__(self, world: World, allowed: set[str]) -> None:
        """`allowed` are all that may fire."""
        self._world = world
        self._allowed = allowed
        self._began = self._mended = time.monotonic()
        self.fires_s: dict[str, float] = {}
        """By alert, seconds from the beginning until it first fired."""
        self.recovers_s: dict[str, float] = {}
        """By alert, seconds from the mending until it last ceased to."""

    def mended(self) -> None:
        """Count seconds to recovery from now on."""
        self._mended = time.monotonic()

    def until(self, wanted: set[str], *, within_s: float) -> None:
        """Wait until all of `wanted` have fired, or, if it is empty, until nothing fires."""
        firing: set[str] = set()

        def is_so() -> bool:
            nonlocal firing
            firing = self._look()
            return wanted <= self.fires_s.keys() if wanted else not firing

        try:
            self._world.fleet.until(is_so, what="alerts", timeout_s=within_s, every_s=_LOOK_EVERY_S)
        except NotInTime:
            raise NotInTime(
                f"not within {within_s:g} s: wanted {_listed(wanted)}, firing {_listed(firing)}"
            ) from None

    def _look(self) -> set[str]:
        now = time.monotonic()
        firing = {alert.removeprefix(PREFIX) for alert in self._world.prometheus.firing()}
        assert firing <= self._allowed, f"{_listed(firing - self._allowed)} must not fire"
        for alert in firing:
            self.fires_s.setdefault(alert, now - self._began)
            self.recovers_s.pop(alert, None)
        for alert in self.fires_s.keys() - firing - self.recovers_s.keys():
            self.recovers_s[alert] = now - self._mended
        return firing


def _listed(alerts: set[str]) -> str:
    return ", ".join(sorted(alerts)) or "none"
