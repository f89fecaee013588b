"""What it costs when a great many events are stored already."""

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from ingest import settings
from ingest.dispatch import Dispatcher
from ingest.redis_address import parse_redis
from ingest.store import partitions
from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from ingest.store.reports import totals
from ingest.store.search import events
from ingest.store.search.filters import EventFilter
from tests.benchmarks.world import World
from workers.relay.sweep import Relay

_CHUNK = 250_000
_DAYS = 30
_RUNS = 7

# One event of many in thirty days: what its delivery, its job and its message's row come to. One of
# 5,000 is dead, one of 10,000 has no processor, one of 1,000 is an order.
_ROWS = """
    SELECT i, (lpad(to_hex(ms), 12, '0') || '7' || substr(hash, 1, 3) || '8' || substr(hash, 5, 15))
              ::uuid AS id,
           to_timestamp(ms / 1000.0) AS at,
           CASE WHEN i %% 10000 = 1 THEN 'tag.added' WHEN i %% 1000 = 0 THEN 'order.created'
                ELSE 'message.received' END AS type,
           'wamid.HBgMOTY2NTAwMDAwMDAwFQIAERgS9' || lpad(i::text, 11, '0') AS message
    FROM (SELECT i, md5(i::text) AS hash,
                 %(start)s + (i * %(span)s::numeric / %(total)s)::bigint AS ms
          FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS i) AS numbered
"""
_SEED = f"""
    WITH seeded AS MATERIALIZED ({_ROWS}), stored AS (
        INSERT INTO deliveries (id, source, received_at, key_id, headers, body)
        SELECT id, 'awalchat', at, '00000000', '[]',
               convert_to('{{"event":"' || type || '","timestamp":"2026-01-20T10:30:00Z","data":'
                   || '{{"message_id":"' || message || '","conversation_id":' || i %% 5000
                   || ',"from":"9665' || lpad((i %% 50000)::text, 8, '0')
                   || '","to":"966500000001","type":"text","body":"' || repeat('.', 120)
                   || '","timestamp":"2026-01-20T10:30:00Z"}}}}', 'UTF8')
        FROM seeded
    ), known AS (
        INSERT INTO events (id, source, event_id, type, fingerprint, received_at)
        SELECT id, 'awalchat', type || ':' || message, type, sha256(message::bytea), at FROM seeded
    ), worked AS (
        INSERT INTO jobs (event, processor, queue, state, trigger, attempt, failures, max_attempts,
                          started_at, finished_at, worker)
        SELECT id, 'messages', 'events', CASE WHEN i %% 5000 = 2 THEN 'dead' ELSE 'succeeded' END,
               'delivery', 1, 0, 8, at, at, 'host:1:aaaaaa'
        FROM seeded WHERE type <> 'tag.added'
    ), lacking AS (
        INSERT INTO unhandled SELECT id FROM seeded WHERE type = 'tag.added'
    )
    INSERT INTO messages (message_id, conversation_id, from_number, to_number, type, body,
                          timestamp, received_event_id, last_event_at, last_event_id)
    SELECT message, i %% 5000, '9665' || lpad((i %% 50000)::text, 8, '0'), '966500000001', 'text',
           repeat('.', 120), at, type || ':' || message, at, type || ':' || message
    FROM seeded
"""
_TOTALS = """
    INSERT INTO totals
    SELECT 'events', 0, count(*) FROM events
    UNION ALL SELECT 'jobs', 0, count(*) FROM jobs
    UNION ALL SELECT 'unhandled', 0, count(*) FROM unhandled
    ON CONFLICT (counted, slot) DO UPDATE SET rows = excluded.rows
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """How long something took, over some runs; milliseconds."""

    what: str
    median_ms: float
    worst_ms: float


def seed(world: World, count: int) -> None:
    """Store `count` events of the last thirty days, each worked on."""
    today = datetime.now(UTC).date()
    engine = create_engine(parse(world.database_url), role=Role.MIGRATION)
    with engine.begin() as connection:
        partitions.ensure(connection, today=today - timedelta(days=_DAYS), days_ahead=_DAYS + 1)
    engine.dispose()
    span = _DAYS * 86_400_000
    start = int(time.time() * 1000) - span - 60_000
    chunks = iter(range(0, count, _CHUNK))
    lock = threading.Lock()

    def work() -> None:
        with world.connect() as connection:
            # The triggers would do row by row what is done below for all.
            connection.execute(b"SET session_replication_role = replica")
            connection.execute(b"SET synchronous_commit = off")
            while True:
                with lock:
                    first = next(chunks, None)
                if first is None:
                    return
                last = min(first + _CHUNK, count) - 1
                values = {"start": start, "span": span, "total": count, "first": first}
                connection.execute(_SEED.encode(), {**values, "last": last})

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with world.connect() as driver:
        driver.execute(_TOTALS.encode())
        driver.execute("VACUUM (ANALYZE)")
        driver.execute("CHECKPOINT")


def reads(world: World) -> Iterator[Timed]:
    """What people ask for, and an idle relay's sweep; the first run counts."""
    engine = create_engine(parse(world.database_url), role=Role.OPERATOR)
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        yield _time("stats", lambda: totals.read(connection))
        for what, selection in _selections(connection):
            yield _time(f"events list{what}", _page(connection, selection))
    engine.dispose()
    with _relay(world) as relay:
        yield _time("relay sweep, idle", relay.sweep)


def _selections(connection: Connection) -> Iterator[tuple[str, EventFilter]]:
    yield "", EventFilter()
    for type_ in ("message.received", "order.created", "order.*", "tag.added", "none.such"):
        yield f" --type {type_}", EventFilter(types=(type_,))
    for state in ("succeeded", "dead", "retrying", "pending", "running", "unhandled"):
        yield f" --state {state}", EventFilter(state=state)
    now = datetime.now(UTC)
    week_ago = now - timedelta(days=7)
    yield " --since 1h", EventFilter(since=now - timedelta(hours=1))
    yield " --until 7d", EventFilter(until=week_ago)
    yield " --type order.* --state dead", EventFilter(types=("order.*",), state="dead")
    (old,) = events.events(connection, EventFilter(until=week_ago), limit=1)
    message = old.event_id.partition(":")[2]
    yield " --search MESSAGE_ID --limit 1", EventFilter(search=message)


def _page(connection: Connection, selection: EventFilter) -> Callable[[], object]:
    limit = 20 if selection.search is None else 1
    return lambda: list(events.events(connection, selection, limit=limit))


@contextmanager
def _relay(world: World) -> Iterator[Relay]:
    given = settings.load(standalone=True, database_url=world.database_url)
    engine = create_engine(parse(world.database_url), role=Role.RELAY)
    dispatcher = Dispatcher(parse_redis(world.redis_url))
    try:
        yield Relay(engine, dispatcher, given)
    finally:
        dispatcher.close()
        engine.dispose()


def _time(what: str, run: Callable[[], object]) -> Timed:
    taken = []
    for _ in range(_RUNS):
        began = time.perf_counter()
        run()
        taken.append((time.perf_counter() - began) * 1000)
    return Timed(what=what, median_ms=statistics.median(taken), worst_ms=max(taken))
