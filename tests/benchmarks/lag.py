"""How long from the request to the effect when there is little to do."""

from dataclasses import dataclass

from tests.benchmarks.answers import Target
from tests.benchmarks.ours import Ours
from tests.benchmarks.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """From receipt to the commit of the effect, milliseconds; the answer lies between."""

    rate: float
    p50: float
    p99: float


def measure(world: World, ours: Ours, *, rate: float, seconds: float) -> Lag:
    """Send at a low rate to a receiver with a worker at hand."""
    target = Target(world, ours)
    ours.start_workers(world)
    world.fleet.until(lambda: ours.is_done(world), what="all is done", timeout_s=60)
    with world.connect() as connection:
        connection.execute("CREATE TABLE warm_up AS SELECT event FROM jobs")
    target.ask(count=int(rate * seconds), connections=8, rate=rate)
    world.fleet.until(lambda: ours.is_done(world), what="all is done", timeout_s=60)
    with world.connect() as connection:
        row = connection.execute(
            "SELECT percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM"
            " j.finished_at - e.received_at) * 1000) FROM jobs j JOIN events e ON e.id = j.event"
            " WHERE NOT EXISTS (SELECT FROM warm_up w WHERE w.event = e.id)"
        ).fetchone()
    assert row is not None
    return Lag(rate=rate, p50=float(row[0][0]), p99=float(row[0][1]))
