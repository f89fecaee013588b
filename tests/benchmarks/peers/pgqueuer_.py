"""PgQueuer on PostgreSQL as a subject."""

import asyncio

import asyncpg
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

from tests.benchmarks.textbook.stored import StoredEvents, analyze, store
from tests.benchmarks.world import World


class PgQueuer(StoredEvents):
    """`pgq run`."""

    name = "pgqueuer"

    def prepare(self, world: World) -> None:
        """The tables, and PgQueuer's schema."""
        super().prepare(world)
        asyncio.run(_install(world))

    def fill(self, world: World, count: int, *, first: int = 0) -> None:
        """Store `count` events and enqueue a job for each."""
        asyncio.run(_enqueue(world, store(world, count, first)))
        analyze(world)

    def start_workers(self, world: World, number: int = 1) -> None:
        """Start pairs of workers, each of which is one process."""
        for each in range(1, 2 * number + 1):
            world.start(
                f"worker-{each}",
                ["-m", "tests.benchmarks.peers.pgqueuer_worker"],
                {"BENCH_DATABASE_URL": world.database_url},
                ready=lambda: True,
            )


async def _install(world: World) -> None:
    """What its guide asks for: `pgq install`, `pgq autovac`."""
    connection = await asyncpg.connect(world.database_url)
    queries = Queries(AsyncpgDriver(connection))
    await queries.install()
    await queries.optimize_autovacuum()
    await connection.close()


async def _enqueue(world: World, ids: list[int]) -> None:
    connection = await asyncpg.connect(world.database_url)
    await Queries(AsyncpgDriver(connection)).enqueue(
        ["process"] * len(ids), [str(event_id).encode() for event_id in ids], [0] * len(ids)
    )
    await connection.close()
