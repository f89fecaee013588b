"""awa from Python. It polls as often as the benchmark's own program for it, which is Rust."""

import asyncio
import json
import os
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import awa
from psycopg import AsyncConnection

from tests.harness.protocol import Counts, Settings, run

_QUEUE = "bench"
_CONNECTIONS = 80
_POLL_MS = 50
_TABLES = """
    SELECT oid::regclass::text FROM pg_class
    WHERE relnamespace = 'awa'::regnamespace AND relkind = 'r'
      AND relname ~ '^(ready_entries|done_entries|leases|lease_claims|lease_claim_closures)_[0-9]+$'
    ORDER BY 1
"""


@dataclass
class Work:
    """What a job is told."""

    sent_at: float
    padding: str


class Awa:
    """A client that inserts by COPY, and works with so many workers."""

    name = "awa-python"
    version = version("awa-pg")
    tables: tuple[str, ...] = (
        "awa.queue_ring_state",
        "awa.lease_ring_state",
        "awa.claim_ring_state",
    )

    async def open(self, settings: Settings, counts: Counts) -> None:
        """Migrate, and start the workers."""
        self._settings, self._counts, self._inserted = settings, counts, 0
        self._client = awa.AsyncClient(settings.database_url, max_connections=_CONNECTIONS)
        if settings.instance == 0:
            await self._client.migrate()

        @self._client.task(Work, queue=_QUEUE)  # type: ignore[untyped-decorator]
        async def work(job: Any) -> None:  # its type has no parameters at run time
            late = time.time() - job.args.sent_at
            await asyncio.sleep(settings.work_s)
            counts.ended(late)

        await self._client.start([(_QUEUE, settings.workers)], poll_interval_ms=_POLL_MS)
        async with await AsyncConnection.connect(settings.database_url) as connection:
            rows = await (await connection.execute(_TABLES)).fetchall()
        self.tables += tuple(row[0] for row in rows)

    async def insert(self, count: int) -> int:
        """Insert a batch."""
        work = Work(sent_at=time.time(), padding="")
        work.padding = self._settings.padding(json.dumps(asdict(work)))
        await self._client.enqueue_many_copy([work] * count, queue=_QUEUE)
        self._inserted += count
        return count

    async def depth(self) -> int:
        """What this process has inserted and not worked on: awa's own statistics are seconds old,
        so that a producer that looks at them stands still."""
        return self._inserted - self._counts.done

    async def close(self) -> None:
        """Let what runs end."""
        await self._client.shutdown()


if __name__ == "__main__":
    os.environ.setdefault("RUST_LOG", "error")
    run(Awa())
