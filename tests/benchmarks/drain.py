"""How fast workers get through what waits."""

from tests.benchmarks.subject import Drained, Working
from tests.benchmarks.world import World

_LONGEST_S = 600.0


def drain(world: World, subject: Working, count: int, *, workers: int = 1) -> Drained:
    """Let `count` messages wait, then let workers at them."""
    subject.prepare(world)
    subject.fill(world, count)
    subject.start_workers(world, workers)
    world.fleet.until(
        lambda: subject.is_done(world), what="all is done", timeout_s=_LONGEST_S, every_s=0.5
    )
    return subject.drained(world)
