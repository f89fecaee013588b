"""What befalls the primary, or Redis's master, and how long no answer was 200 over it, and nothing
took effect."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

from sqlalchemy import text

from tests.faults.catalogue import Fault
from tests.faults.load import Journal
from tests.faults.world import World
from tests.high_availability.network import Node
from tests.high_availability.world import LOOP_S, TTL_S, ClusterWorld

_CUT_BEFORE_KILL_S = 3
"""Less than `wal_sender_timeout`: the primary still waits for its standby then."""
_CUT_S = 15


# Both servers' clocks are this machine's.
_LONGEST_WITHOUT_EFFECT = text(
    """
    SELECT extract(epoch FROM max(finished_at - before))::float8
    FROM (SELECT finished_at, lag(finished_at) OVER (ORDER BY finished_at) AS before FROM jobs
          WHERE state = 'succeeded') AS gaps
    WHERE finished_at > to_timestamp(:began) AND before < to_timestamp(:ended)
    """
)


@dataclass(slots=True)
class Gaps:
    """How long it lasted, seconds for each time that it struck."""

    answers_s: list[float] = field(default_factory=list)
    """Without an answer of 200."""
    effects_s: list[float] = field(default_factory=list)
    """Without a job that succeeded."""

    def __str__(self) -> str:
        without = ((self.answers_s, "a 200"), (self.effects_s, "an effect"))
        return ", ".join(
            f"without {what} for {[round(s, 1) for s in of]} s" for of, what in without
        )


class Strike:
    """One kind of failure of the primary, and the outages that it made."""

    def __init__(self, name: str, strike: Callable[[ClusterWorld, Node], None], times: int) -> None:
        self.name = name
        self.times = times
        self.gaps = Gaps()
        self._strike = strike
        self._windows: list[tuple[float, float]] = []

    def fault(self) -> Fault:
        """Return it as the fault suite's runner takes it."""
        return Fault(
            name=self.name,
            strike=self._run,
            bound=f"ttl {TTL_S}, loop_wait {LOOP_S}",
            repeats=self.times,
            check=self._measure,
        )

    def _run(self, world: World, _random: Random) -> None:
        assert isinstance(world, ClusterWorld)
        world.await_standby()
        world.await_replica()
        struck = world.master() if "Redis" in self.name else world.primary()
        assert struck is not None
        world.fleet.wait(2)
        began = time.time()
        self._strike(world, struck)
        world.await_standby()
        world.await_replica()
        world.fleet.wait(2)
        self._windows.append((began, time.time()))

    def _measure(self, world: World, journal: Journal) -> list[str]:
        self.gaps.answers_s += [_outage_s(journal, *window) for window in self._windows]
        with world.engine.connect() as connection:
            for began, ended in self._windows:
                found = connection.execute(
                    _LONGEST_WITHOUT_EFFECT, {"began": began, "ended": ended}
                ).scalar_one()
                self.gaps.effects_s.append(found)
        return []


def all_strikes(rounds: int) -> list[Strike]:
    """Return the strikes of the suite; `rounds` is how often each does that makes a failover, but
    the last. Three rounds are ten failovers of the primary."""
    listed: list[tuple[str, Callable[[ClusterWorld, Node], None], int]] = [
        ("primary: kill -9", kill, rounds),
        ("primary: frozen", freeze, rounds),
        ("primary: cut off", cut_off, rounds),
        ("primary: cut off from its standby", cut_from_standby, 1),
        cut_then_killed(),
        ("Redis's master: kill -9", kill, 1),
        ("Redis's master: frozen", freeze, 1),
        ("Redis's master: cut off", cut_off, 1),
    ]
    return [Strike(*strike) for strike in listed]


def cut_then_killed() -> tuple[str, Callable[[ClusterWorld, Node], None], int]:
    """Return the strike that an asynchronous standby loses by."""
    return ("primary: cut off from its standby, then kill -9", _cut_then_kill, 1)


def kill(world: ClusterWorld, node: Node) -> None:
    """SIGKILL all of it; the machine comes back after the failover."""
    world.kill(node)
    _await_failover(world, node)
    world.start_again(node)


def freeze(world: ClusterWorld, node: Node) -> None:
    """SIGSTOP all of it until some seconds after the failover: connections stay open."""
    node.signal(signal.SIGSTOP)
    try:
        _await_failover(world, node)
        world.fleet.wait(3)
    finally:
        node.signal(signal.SIGCONT)


def cut_off(world: ClusterWorld, node: Node) -> None:
    """Pull the cable until some seconds after the failover."""
    node.cut_off()
    try:
        _await_failover(world, node)
        world.fleet.wait(3)
    finally:
        node.reconnect()


def cut_from_standby(world: ClusterWorld, primary: Node) -> None:
    """Keep the two from each other for a while; all others reach both."""
    _isolate(world, on=True)
    try:
        world.fleet.wait(_CUT_S)
    finally:
        _isolate(world, on=False)


def _cut_then_kill(world: ClusterWorld, primary: Node) -> None:
    _isolate(world, on=True)
    try:
        world.fleet.wait(_CUT_BEFORE_KILL_S)
        world.kill(primary)
        world.await_primary(world.other(primary))
    finally:
        _isolate(world, on=False)
    world.start_again(primary)


def _await_failover(world: ClusterWorld, node: Node) -> None:
    """Wait until the other of the two has taken over."""
    other = world.other(node)
    if node in world.databases:
        world.await_primary(other)
    else:
        world.fleet.until(
            lambda: world.master() is other, what=f"{other.name} is the master", timeout_s=120
        )


def _isolate(world: ClusterWorld, *, on: bool) -> None:
    for node in world.databases:
        node.isolate(on=on)


def _outage_s(journal: Journal, began: float, ended: float) -> float:
    """Return the longest time without an answer of 200 between two moments."""
    answered = sorted(at for at, _, answer in journal.tries if answer == "200")
    inside = [began, *(at for at in answered if began < at < ended), ended]
    return max(later - earlier for earlier, later in pairwise(inside))
