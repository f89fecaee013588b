"""What `procrastinate worker` imports; so its application is made at import, and addresses come
from the environment."""

import logging
import os

from procrastinate import App, PsycopgConnector
from psycopg import AsyncRawCursor
from psycopg_pool import AsyncConnectionPool

from tests.benchmarks.peers.work import KEEP, TAKE, message

_URL = os.environ["BENCH_DATABASE_URL"]
_CONCURRENCY = 10  # 4 and 30 come to the same; its default is 1

logging.getLogger("procrastinate").setLevel(logging.WARNING)  # as quiet as the others

# Its guide: with short jobs as many connections as concurrency, and one.
app = App(
    connector=PsycopgConnector(conninfo=_URL, max_size=_CONCURRENCY + 1),
    worker_defaults={"concurrency": _CONCURRENCY},
)
pool = AsyncConnectionPool(
    _URL, min_size=_CONCURRENCY, kwargs={"cursor_factory": AsyncRawCursor}, open=False
)


@app.task(name="process")  # type: ignore[untyped-decorator]
async def process(event_id: int) -> None:
    """Keep the message of an event, unless that was done."""
    await pool.open()  # does nothing when it is
    async with pool.connection() as connection:
        row = await (await connection.execute(TAKE, (event_id,))).fetchone()
        if row is not None:
            await connection.execute(KEEP, message(row[0]))
