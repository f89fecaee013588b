"""Whether twice the CPU time gives twice the rate: the same work with quotas of it.

Two cores cannot show what eight do. They can show whether the processes wait for anything but CPU
time, which is what more cores could not give.
"""

import time
from collections.abc import Iterator

from tests.benchmarks.answers import Target
from tests.benchmarks.ours import Ours
from tests.benchmarks.quota import Quota
from tests.benchmarks.retention import Figure
from tests.benchmarks.subject import Drained
from tests.benchmarks.world import World

_ANSWERED_WITH = (0.4, 0.8, 1.2, 1.6)
"""Cores, of two: the client needs the rest."""
_DRAINED_WITH = (0.5, 1.0, 1.5, 2.0)
_MOST_A_SECOND = 12_000
"""Requests that are signed for a second of a core; none answers more."""
_RECEIVERS = 2
_LONGEST_S = 3_600.0


def measure(*, seconds: float, count: int) -> Iterator[Figure]:
    """Durable answers for some seconds, then a drain of `count` events, with each quota."""
    for cores in _ANSWERED_WITH:
        with Quota(cores) as quota, World() as world:
            target = Target(world, Ours(), receivers=_RECEIVERS)
            quota.leave()  # the client is not part of it
            most = int(_MOST_A_SECOND * cores * seconds)
            for _ in range(2):  # the first also pays for what receivers load after their start
                answered = target.ask(count=most, connections=64, seconds=seconds)
        spent_us = sum(us for kind, us in answered.cpu_us.items() if kind != "client")
        yield from _figures("durable answers", cores, answered.result.rate, spent_us)
    for cores in _DRAINED_WITH:
        with Quota(cores), World() as world:
            drained, spent_us = _drain(world, count)
        yield from _figures("events worked on", cores, drained.rate, spent_us)


def _drain(world: World, count: int) -> tuple[Drained, float]:
    """Let workers at `count` events; return how that went, and the CPU of each event in
    microseconds, without that of starting."""
    ours = Ours()
    ours.prepare(world)
    ours.fill(world, count)
    ours.start_workers(world)
    since, before = time.time(), sum(world.cpu_s().values())
    world.fleet.until(
        lambda: ours.is_done(world), what="all is done", timeout_s=_LONGEST_S, every_s=0.5
    )
    spent_s = sum(world.cpu_s().values()) - before
    drained = ours.drained(world, since=since)  # what was done before, the relay started meanwhile
    return drained, spent_s / max(1, drained.events) * 1e6


def _figures(what: str, cores: float, rate: float, spent_us: float) -> Iterator[Figure]:
    """The rate, and what it cost: more CPU time for each would mean that they hinder each other."""
    yield Figure(what=f"{what} with {cores:g} cores", value=rate, unit="a second")
    yield Figure(what=f"{what} with {cores:g} cores, for each core", value=rate / cores, unit="")
    yield Figure(what=f"{what} with {cores:g} cores, CPU of each", value=spent_us, unit="us")
