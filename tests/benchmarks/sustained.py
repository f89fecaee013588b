"""The whole way under a steady load: how far the effects are behind the answers."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from ingest.ids import received_at
from tests.benchmarks.client import Client
from tests.benchmarks.load import Plan, Result
from tests.benchmarks.ours import Ours
from tests.benchmarks.world import World

LAG_LIMIT_S = 1.0
_GIVE_UP_S = 3.0
_SAMPLE_S = 0.25

# What is oldest of all that is not worked on: ids carry the time of receipt.
_OLDEST = b"""
    SELECT least((SELECT delivery FROM unadmitted ORDER BY delivery LIMIT 1),
                 (SELECT event FROM jobs WHERE lease_until IS NOT NULL ORDER BY event LIMIT 1),
                 (SELECT event FROM jobs WHERE due_at IS NOT NULL ORDER BY event LIMIT 1))
"""


@dataclass(slots=True)
class Lease:
    """Whether a rate could be held."""

    rate: float
    lags_s: list[float] = field(default_factory=list)
    """Age of the oldest event that is not worked on, sampled while requests come."""
    sampled_at: list[float] = field(default_factory=list)
    """Unix times of these."""
    result: Result | None = None

    @property
    def is_held(self) -> bool:
        """Every request was answered in time, and no effect was ever a second behind."""
        return (
            self.result is not None
            and self.result.behind_ms < LAG_LIMIT_S * 1000
            and max(self.lags_s, default=0.0) < LAG_LIMIT_S
        )


class Line:
    """A receiver, a worker and a relay with everything at its default."""

    def __init__(self, world: World, ours: Ours) -> None:
        ours.prepare(world)
        self._world = world
        self._port = ours.start_receivers(world)
        ours.start_workers(world)
        self._path = ours.path
        self._first = 0

    def offer(
        self, rate: float, seconds: float, *, connections: int = 64, is_long: bool = False
    ) -> Lease:
        """Send at `rate` for so long, and see how far the effects are behind. More than some
        minutes are long: requests are signed one by one."""
        count = int(rate * seconds)
        plan = Plan(
            port=self._port,
            path=self._path,
            count=count,
            connections=connections,
            rate=rate,
            first=self._first,
            is_long=is_long,
        )
        self._first += count
        held = Lease(rate=rate)
        client = Client(plan)
        with self._world.connect() as connection:
            while client.is_running:
                row = connection.execute(_OLDEST).fetchone()
                held.lags_s.append(_age_s(row[0] if row else None))
                held.sampled_at.append(time.time())
                if held.lags_s[-1] > _GIVE_UP_S:
                    client.kill()
                    break
                time.sleep(_SAMPLE_S)
            else:
                held.result = client.result()
        return held

    def settle(self) -> None:
        """Wait until nothing waits."""

        def is_idle() -> bool:
            with self._world.connect() as connection:
                row = connection.execute(_OLDEST).fetchone()
            return row is None or row[0] is None

        self._world.fleet.until(is_idle, what="all is worked on", timeout_s=300, every_s=0.2)


def highest(line: Line, *, first: float, step: float, seconds: float, confirm_s: float) -> Lease:
    """The highest rate of `first`, `first` + `step` … that is held, confirmed for `confirm_s`."""
    rate, best = first, 0.0
    while line.offer(rate, seconds).is_held:
        line.settle()
        best, rate = rate, rate + step
    line.settle()
    while best > 0:
        held = line.offer(best, confirm_s)
        line.settle()
        if held.is_held:
            return held
        best -= step
    return Lease(rate=0.0)


def _age_s(oldest: UUID | None) -> float:
    if oldest is None:
        return 0.0
    return (datetime.now(UTC) - received_at(oldest)).total_seconds()
