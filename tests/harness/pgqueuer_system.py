"""PgQueuer, in batches of half its concurrency as its guide advises, under its own supervisor.

The benchmark has no program for it.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from importlib.metadata import version

import asyncpg
import pgqueuer
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from tests.harness.protocol import Counts, Settings, run

_ENTRYPOINT = "bench"
_RESTART_S = 1


class PgQueuerSystem:
    """A worker with a connection of its own, and a pool that inserts and looks."""

    name = "pgqueuer"
    version = version("pgqueuer")
    tables: tuple[str, ...] = ("public.pgqueuer", "public.pgqueuer_log")

    async def open(self, settings: Settings, counts: Counts) -> None:
        """Install, and start the worker."""
        self._settings, self._counts = settings, counts
        self._pool = await asyncpg.create_pool(settings.database_url)
        self._queries = Queries(AsyncpgPoolDriver(self._pool))
        if not await self._queries.has_table(self.tables[0].partition(".")[2]):
            await self._queries.install()
        self._ended = asyncio.Event()
        self._worker = asyncio.create_task(
            pgqueuer.run(
                self._make,
                batch_size=max(1, settings.workers // 2),
                max_concurrent_tasks=max(2, settings.workers),
                shutdown_on_listener_failure=True,
                restart_on_failure=True,
                restart_delay=timedelta(seconds=_RESTART_S),
                shutdown=self._ended,
            )
        )

    @asynccontextmanager
    async def _make(self) -> AsyncIterator[PgQueuer]:
        own = await asyncpg.connect(self._settings.database_url)
        pgq = PgQueuer(AsyncpgDriver(own))

        @pgq.entrypoint(_ENTRYPOINT)  # type: ignore[untyped-decorator]
        async def work(job: Job) -> None:
            assert job.payload is not None
            late = time.time() - json.loads(job.payload)["sent_at"]
            await asyncio.sleep(self._settings.work_s)
            self._counts.ended(late)

        try:
            yield pgq
        finally:
            await own.close()

    async def insert(self, count: int) -> int:
        """Insert a batch."""
        job: dict[str, object] = {"sent_at": time.time(), "padding": ""}
        job["padding"] = self._settings.padding(json.dumps(job))
        payload = json.dumps(job).encode()
        await self._queries.enqueue([_ENTRYPOINT] * count, [payload] * count, [0] * count)
        return count

    async def depth(self) -> int:
        """As its own statistics have it."""
        sizes = await self._queries.queue_size()
        return sum(size.count for size in sizes if size.status == "queued")

    async def close(self) -> None:
        """Let what runs end."""
        self._ended.set()
        await asyncio.wait([self._worker], timeout=5)
        self._pool.terminate()


if __name__ == "__main__":
    run(PgQueuerSystem())
