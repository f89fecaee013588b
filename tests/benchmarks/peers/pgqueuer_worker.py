"""A worker of PgQueuer as a program, which `pgq run` would start if it started: that of PgQueuer
1.6.0 fails with typer 0.29. Its address comes from the environment."""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pgqueuer
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job

from tests.benchmarks.peers.work import KEEP, TAKE, message

# Its guide wants more than the default 10 for short jobs, and a limit of at least two batches.
# Without a limit it claims the whole backlog at once, at an eighth more CPU and twice the memory.
_BATCH = 50


@asynccontextmanager
async def main() -> AsyncIterator[PgQueuer]:
    """A worker with a connection for its queue, and a pool for its jobs."""
    url = os.environ["BENCH_DATABASE_URL"]
    own = await asyncpg.connect(url)
    async with asyncpg.create_pool(url) as pool:
        pgq = PgQueuer(AsyncpgDriver(own))

        @pgq.entrypoint("process")  # type: ignore[untyped-decorator]
        async def process(job: Job) -> None:
            assert job.payload is not None
            async with pool.acquire() as connection, connection.transaction():
                payload = await connection.fetchval(TAKE, int(job.payload))
                if payload is not None:
                    await connection.execute(KEEP, *message(json.loads(payload)))

        yield pgq
    await own.close()


if __name__ == "__main__":
    uvloop.run(pgqueuer.run(main, batch_size=_BATCH, max_concurrent_tasks=2 * _BATCH))
