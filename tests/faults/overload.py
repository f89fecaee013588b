"""More events than can be worked on, for a while."""

import time
from contextlib import ExitStack
from random import Random

from tests.faults import audit
from tests.faults.load import Journal, Load, read
from tests.faults.strike import NotStruck
from tests.faults.world import World

_RATE = 600.0
"""Events a second of each sender that comes beside the usual one."""
_EVERY_S = 6.0
"""Another sender comes so often, until what waits grows."""
_SENDERS = 24
_GROWN = 3_000
"""So many more that wait are an overload."""
_LASTS_S = 15.0


class Overload:
    """Further senders, and what was answered to them."""

    def __init__(self) -> None:
        self._journals: list[Journal] = []

    def strike(self, world: World, random: Random) -> None:
        """Let more and more senders come until what waits grows; let that last for a while."""
        before = _waiting(world)
        with ExitStack() as ends:
            for _ in range(_SENDERS):
                self._send(world, random, ends)
                world.fleet.wait(_EVERY_S)
                if _waiting(world) > before + _GROWN:
                    world.fleet.wait(_LASTS_S)
                    return
        raise NotStruck(f"{_SENDERS} further senders were no overload")

    def check(self, world: World, _journal: Journal) -> list[str]:
        """Hold against the database what was answered to those senders."""
        if not any(journal.acknowledged for journal in self._journals):
            return ["nothing of the overload was answered 200"]
        verdicts = [audit.check(world.engine, told, world.outside) for told in self._journals]
        return [f"of the overload: {verdict}" for verdict in verdicts if not verdict.is_clean]

    def _send(self, world: World, random: Random, ends: ExitStack) -> None:
        file = world.home / f"overload-{time.time_ns()}.jsonl"
        load = Load(world, rate=_RATE, seed=random.randrange(10**6), journal=file)

        def stop() -> None:
            try:
                load.stop()
            finally:
                load.kill()
                self._journals.append(read(file))

        ends.callback(stop)


def _waiting(world: World) -> int:
    with world.connect() as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM unadmitted)"
            " + (SELECT count(*) FROM jobs WHERE due_at IS NOT NULL)"
        ).fetchone()
    assert row is not None
    return int(row[0])
