"""Dramatiq on Redis as a subject."""

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from tests.benchmarks.textbook.stored import StoredEvents, analyze, store
from tests.benchmarks.world import World


class Dramatiq(StoredEvents):
    """`dramatiq`, with its default threads."""

    name = "dramatiq"

    def fill(self, world: World, count: int, *, first: int = 0) -> None:
        """Store `count` events and send a message for each."""
        broker = RedisBroker(url=world.redis_url)
        for event_id in store(world, count, first):
            broker.enqueue(
                dramatiq.Message(
                    queue_name="default",
                    actor_name="process",
                    args=(event_id,),
                    kwargs={},
                    options={},
                )
            )
        broker.close()
        analyze(world)

    def start_workers(self, world: World, number: int = 1) -> None:
        """Start workers of two processes each."""
        for each in range(1, number + 1):
            world.start(
                f"worker-{each}",
                ["-m", "dramatiq", "tests.benchmarks.peers.dramatiq_worker", "--processes", "2"],
                {"BENCH_DATABASE_URL": world.database_url, "BENCH_REDIS_URL": world.redis_url},
                ready=lambda: True,
            )
