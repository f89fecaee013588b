"""What order per key costs: claiming and finishing jobs of a great many keys, beside any order.

Both processors have as many jobs that wait. Of the keys, one in a hundred waits behind a dead
letter, and one has a tenth of all jobs. Rounds of the two alternate, so that a machine that is busy
for a while is busy for both. No processor is called: what is measured is what PostgreSQL does, with
the commits.
"""

import statistics
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Engine

from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from ingest.store.pipeline import jobs, processors
from ingest.store.pipeline.jobs import Lease
from ingest.store.pipeline.processors import Registered
from tests.benchmarks.stored import Timed
from tests.benchmarks.world import World

ANY, ORDERED = "any", "ordered"
BATCH = 200
_PER_KEY = 10
_OF_A_KEY = 9
"""Jobs of a key that a worker claims at once; a key has so many, beside the one in a tenth."""
_HINT_S = 3_600.0
_CLAIM: dict[str, Any] = {"worker": "w", "lease_s": 60, "max_attempts": 8}

# The key of a job is a number, and the ids of events follow their receipt. The first of each
# hundredth key is dead, and the others of a key are behind its first. The last tenth of the jobs
# have one key.
_SEED = """
    WITH numbered AS (
        SELECT CAST(%(prefix)s || lpad(to_hex(number), 30, '0') AS uuid) AS event,
               CASE WHEN number > %(count)s * 0.9 THEN -1 ELSE number %% (%(count)s / 10) END AS key
        FROM generate_series(1, %(count)s) AS number
    ), ranked AS MATERIALIZED (
        SELECT event, key, row_number() OVER (PARTITION BY key ORDER BY event) AS rank FROM numbered
    ), known AS (
        INSERT INTO events (id, source, event_id, type, fingerprint, received_at)
        SELECT event, 'awalchat', event::text, 'order.created', 'x', now() FROM ranked
    ), made AS (
        INSERT INTO jobs (event, processor, queue, state, trigger, attempt, failures, max_attempts,
                          next_attempt_at, hinted_until, finished_at)
        SELECT event, %(processor)s, 'live',
               CASE WHEN is_dead THEN 'dead' ELSE 'pending' END, 'delivery',
               CAST(is_dead AS integer), CAST(is_dead AS integer), 8,
               CASE WHEN is_dead THEN NULL WHEN is_behind THEN 'infinity' ELSE now() END,
               CASE WHEN NOT is_dead AND NOT is_behind THEN now() + interval '1 h' END,
               CASE WHEN is_dead THEN now() END
        FROM (
            SELECT event, %(ordered)s AND key %% 100 = 7 AND rank = 1 AS is_dead,
                   %(ordered)s AND rank > 1 AS is_behind
            FROM ranked
        ) AS ready
        RETURNING id, event
    )
    INSERT INTO ordered_jobs (job, processor, event, key, placed)
    SELECT made.id, %(processor)s, made.event,
           CAST(md5(ranked.key::text) AS uuid), true
    FROM made JOIN ranked USING (event) WHERE %(ordered)s
"""
_DUE = """
    SELECT id FROM jobs WHERE processor = %s AND next_attempt_at <= now() ORDER BY id LIMIT %s
"""
_DEEP = """
    SELECT o.job FROM ordered_jobs o JOIN jobs j ON j.id = o.job
    WHERE o.key = CAST(md5('-1') AS uuid) AND j.next_attempt_at <= now()
"""


def costs(world: World, count: int, *, rounds: int) -> Iterator[Timed]:
    """Store `count` waiting jobs for each of the two, and time rounds of `BATCH` jobs."""
    engine = create_engine(parse(world.database_url), role=Role.WORKER)
    _register(engine)
    for name in (ANY, ORDERED):
        _seed(world, name, count)
    deep = _deep(world)
    heads = [job for job in _due(world, ORDERED, 2 * rounds * BATCH) if job not in deep]
    runs, singles = deque(heads[::2]), deque(heads[1::2])
    waiting = deque(_due(world, ANY, rounds * BATCH))
    queue = deque(deep)
    took: dict[str, list[float]] = {ANY: [], ORDERED: [], "single": [], "deep": []}
    for _ in range(rounds):
        took[ANY].append(_round(engine, waiting, BATCH))
        took[ORDERED].append(_round(engine, runs, BATCH, of_a_key=_OF_A_KEY))
        took["single"].append(_round(engine, singles, BATCH, of_a_key=1))
        took["deep"].append(_round(engine, queue, _OF_A_KEY, of_a_key=_OF_A_KEY))
    engine.dispose()
    keys = count // _PER_KEY
    yield timed(f"claim and finish {BATCH} of {count:,} jobs, in any order", took[ANY])
    yield timed(f"likewise, in order, {_OF_A_KEY} each of {keys:,} keys", took[ORDERED])
    yield timed("likewise, one of each key", took["single"])
    yield timed(f"{_OF_A_KEY} of a key with {count // 10:,} jobs", took["deep"])


def _round(engine: Engine, waiting: deque[int], size: int, *, of_a_key: int = 0) -> float:
    """Claim and finish the next jobs, and take up those that were behind them; return how many
    seconds that took. `of_a_key`: how many of one key at once; 0: in any order."""
    ids = [waiting.popleft() for _ in range(min(size, len(waiting)))]
    began = time.perf_counter()
    with engine.begin() as connection:
        if of_a_key:
            runs = jobs.claim_ordered(connection, ids, **_CLAIM, limit=size, of_a_key=of_a_key)
            claimed = runs.jobs
        else:
            claimed = jobs.claim(connection, ids, **_CLAIM)
    with engine.begin() as connection:
        held = [Lease(id=job.id, attempt=job.attempt) for job in claimed]
        if of_a_key:
            woken = jobs.finish_ordered(connection, held, hint_s=_HINT_S)
        else:
            jobs.finish(connection, held)
    took_s = time.perf_counter() - began
    if len(claimed) != size:
        raise RuntimeError(f"{len(claimed)} of {size} jobs were claimed")
    if of_a_key:
        done = {job.id for job in claimed}
        waiting.extendleft(job for job in reversed(ids) if job not in done)
        waiting += [ref.id for ref in woken]
    return took_s


def _register(engine: Engine) -> None:
    with engine.begin() as connection:
        processors.register(
            connection,
            [
                Registered(
                    name=name,
                    types=("order.*",),
                    queue="live",
                    batch=False,
                    threads=1,
                    max_attempts=8,
                    timeout_s=30,
                    ordered_by="order_id" if name == ORDERED else None,
                    on_dead="wait" if name == ORDERED else None,
                )
                for name in (ANY, ORDERED)
            ],
        )


def _seed(world: World, name: str, count: int) -> None:
    with world.connect() as connection:
        connection.execute(
            _SEED.encode(),
            {
                "count": count,
                "processor": name,
                "ordered": name == ORDERED,
                "prefix": "02" if name == ORDERED else "01",
            },
        )
        connection.execute(b"VACUUM ANALYZE")


def _due(world: World, name: str, most: int) -> list[int]:
    with world.connect() as connection:
        return [row[0] for row in connection.execute(_DUE.encode(), (name, most)).fetchall()]


def _deep(world: World) -> set[int]:
    with world.connect() as connection:
        return {row[0] for row in connection.execute(_DEEP.encode()).fetchall()}


def timed(what: str, seconds: Sequence[float]) -> Timed:
    return Timed(
        what=f"{what} ({len(seconds)} times)",
        median_ms=statistics.median(seconds) * 1000,
        worst_ms=max(seconds) * 1000,
    )
