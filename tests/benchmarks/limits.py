"""What limits cost: claiming and finishing jobs of a great many keys, beside a processor without.

Both have as many jobs that wait, and one key has a tenth of them. Rounds of the two alternate, so
that a machine that is busy for a while is busy for both. No processor is called: what is measured
is what PostgreSQL does, with the commits.
"""

import time
from collections import deque
from collections.abc import Iterator

from sqlalchemy import Engine

from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from ingest.store.pipeline import jobs, limits, pulling
from ingest.store.pipeline.jobs import ClaimedJob, Lease
from ingest.store.pipeline.limits import Bounds, DeclaredLimits
from ingest.store.pipeline.pulling import Claiming
from tests.benchmarks.order import timed
from tests.benchmarks.stored import Timed
from tests.benchmarks.world import World

FREE, LIMITED = "free", "limited"
BATCH = 200
DECLARED = DeclaredLimits(
    processor=LIMITED, limit_by="order_id", bounds=Bounds(concurrency=1_000, key_concurrency=2)
)
_CLAIMING = Claiming(worker="w", lease_s=60, max_attempts=8)
_DEEP = "CAST(md5('-1') AS uuid)"

_SEED = """
    WITH numbered AS (
        SELECT CAST(%(prefix)s || lpad(to_hex(number), 30, '0') AS uuid) AS event
        FROM generate_series(1, %(count)s) AS number
    ), known AS (
        INSERT INTO events (id, source, event_id, type, fingerprint, received_at)
        SELECT event, 'awalchat', event::text, 'order.created', 'x', now() FROM numbered
    )
    INSERT INTO jobs (event, processor, queue, state, trigger, attempt, failures, max_attempts,
                      next_attempt_at, hinted_until)
    SELECT event, %(processor)s, 'live', 'pending', 'delivery', 0, 0, 8, now(),
           now() + interval '1 h'
    FROM numbered
"""
_SEED_LINE = f"""
    WITH numbered AS (
        SELECT id, row_number() OVER (ORDER BY id) AS number FROM jobs WHERE processor = %(name)s
    ), entered AS (
        INSERT INTO limited_jobs (job, processor, key)
        SELECT id, %(name)s, CASE WHEN number > %(count)s * 0.9 THEN {_DEEP}
                                  ELSE CAST(md5((number %% (%(count)s / 10))::text) AS uuid) END
        FROM numbered ORDER BY id
        RETURNING key
    )
    INSERT INTO limited_keys (processor, key, turn, waiting)
    SELECT %(name)s, key, 1, true FROM entered GROUP BY key
"""
_WAITING = "SELECT id FROM jobs WHERE processor = %s ORDER BY id LIMIT %s"


def costs(world: World, count: int, *, rounds: int) -> Iterator[Timed]:
    """Store `count` waiting jobs for each of the two, and time rounds of `BATCH` jobs."""
    engine = create_engine(parse(world.database_url), role=Role.WORKER)
    with engine.begin() as connection:
        limits.register(connection, [DECLARED], [])
    _seed(world, count)
    with world.connect() as connection:
        rows = connection.execute(_WAITING.encode(), (FREE, rounds * BATCH)).fetchall()
    waiting = deque(row[0] for row in rows)
    took: dict[str, list[float]] = {FREE: [], LIMITED: [], "one": [], "deep": []}
    for _ in range(rounds):
        took[FREE].append(_free(engine, [waiting.popleft() for _ in range(BATCH)]))
        took[LIMITED].append(_limited(engine, BATCH))
    for _ in range(rounds):
        took["one"].append(_limited(engine, 1))
    _only_the_deep(world)
    for _ in range(rounds):
        took["deep"].append(_limited(engine, 1))
    engine.dispose()
    keys = count // 10
    yield timed(f"claim and finish {BATCH} of {count:,} jobs, without limits", took[FREE])
    yield timed(f"likewise, with limits, of {keys:,} keys", took[LIMITED])
    yield timed("one job, with limits", took["one"])
    yield timed(f"one of a key with {keys:,} jobs", took["deep"])


def _free(engine: Engine, ids: list[int]) -> float:
    began = time.perf_counter()
    with engine.begin() as connection:
        claimed = jobs.claim(connection, ids, worker="w", lease_s=60, max_attempts=8)
    return _finished(engine, claimed, began, expected=len(ids))


def _limited(engine: Engine, size: int) -> float:
    began = time.perf_counter()
    with engine.begin() as connection:
        claimed = pulling.pull(connection, DECLARED, at_most=size, claiming=_CLAIMING)
    return _finished(engine, claimed, began, expected=size)


def _finished(engine: Engine, claimed: list[ClaimedJob], began: float, *, expected: int) -> float:
    with engine.begin() as connection:
        jobs.finish(connection, [Lease(id=job.id, attempt=job.attempt) for job in claimed])
    took_s = time.perf_counter() - began
    if len(claimed) != expected:
        raise RuntimeError(f"{len(claimed)} of {expected} jobs were claimed")
    return took_s


def _seed(world: World, count: int) -> None:
    with world.connect() as connection:
        for name, prefix in ((FREE, "01"), (LIMITED, "02")):
            parameters = {"count": count, "processor": name, "prefix": prefix}
            connection.execute(_SEED.encode(), parameters)
        connection.execute(_SEED_LINE.encode(), {"name": LIMITED, "count": count})
        connection.execute(b"VACUUM ANALYZE")


def _only_the_deep(world: World) -> None:
    """Leave only the key with most jobs ready."""
    with world.connect() as connection:
        others = f"UPDATE limited_keys SET held_until = 'infinity' WHERE key <> {_DEEP}"
        connection.execute(others.encode())
