"""What each process of `dramatiq` imports, after its fork; so what it needs is made at import, and
addresses come from the environment."""

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from psycopg import RawCursor
from psycopg_pool import ConnectionPool

from tests.benchmarks.peers.work import KEEP, TAKE, message

_THREADS = 8  # dramatiq's default

dramatiq.set_broker(RedisBroker(url=os.environ["BENCH_REDIS_URL"]))
pool = ConnectionPool(
    os.environ["BENCH_DATABASE_URL"],
    min_size=_THREADS,
    kwargs={"cursor_factory": RawCursor},
    open=True,
)


@dramatiq.actor  # type: ignore[untyped-decorator]
def process(event_id: int) -> None:
    """Keep the message of an event, unless that was done."""
    with pool.connection() as connection:
        row = connection.execute(TAKE, (event_id,)).fetchone()
        if row is not None:
            connection.execute(KEEP, message(row[0]))
