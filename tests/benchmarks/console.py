"""How long the console's pages keep somebody waiting, with a great many events behind them."""

import http.client
import os
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from ingest.store.search import events
from ingest.store.search.filters import EventFilter
from tests.benchmarks.stored import Timed
from tests.benchmarks.world import World, answers
from tests.support.ports import free_port

_RUNS = 7

# What the past leaves besides: an attempt of each dead letter, a month of activity as the relay
# has merged it, a processor.
_PAST = (
    """
    INSERT INTO attempts (job, number, trigger, worker, started_at, finished_at, outcome,
                          error_type, error_message, traceback)
    SELECT id, 1, 'delivery', worker, started_at, finished_at, 'failed',
           CASE id % 3 WHEN 0 THEN 'KeyError' WHEN 1 THEN 'TimeoutError' ELSE 'ValueError' END,
           'something about ' || event,
           repeat('  File "/app/shop/messages.py", line 40, in handle' || E'\\n    x()\\n', 12)
               || '  File "/app/shop/crm.py", line ' || 10 + id % 5 || E', in call\\n    raise\\n'
    FROM jobs WHERE state = 'dead'
    """,
    """
    INSERT INTO activity (minute, what, label, bucket, slot, count)
    SELECT minute, what, label, bucket, 0, 100
    FROM (SELECT generate_series(date_trunc('minute', now()) - interval '2 hours', now(),
                                 interval '1 minute')
          UNION
          SELECT generate_series(date_trunc('hour', now()) - interval '26 hours', now(),
                                 interval '15 minutes')
          UNION
          SELECT generate_series(date_trunc('hour', now()) - interval '30 days', now(),
                                 interval '1 hour')) AS at (minute)
    CROSS JOIN (
        SELECT 'event', '', 0 UNION ALL SELECT 'duplicate', '', 0
        UNION ALL SELECT 'answer', '', b FROM generate_series(1, 6) AS b
        UNION ALL SELECT 'lag', '', b FROM generate_series(2, 9) AS b
        UNION ALL SELECT 'succeeded', 'p' || p, b
        FROM generate_series(1, 8) AS p, generate_series(1, 6) AS b
        UNION ALL SELECT 'failed', 'p' || p, 0 FROM generate_series(1, 8) AS p
    ) AS happened (what, label, bucket)
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO processors (name, types, queue, batch, threads, max_attempts, timeout_s,
                            registered_at)
    VALUES ('messages', '["message.received"]', 'events', true, 1, 8, 30, now())
    """,
    "ANALYZE attempts, activity, processors",
)


def pages(world: World) -> Iterator[Timed]:
    """Every page's first byte; the first run, in a console that was just started, counts too."""
    with world.connect() as connection:
        for statement in _PAST:
            connection.execute(statement.encode())
    port = free_port()
    inherited = {"INGEST_DATABASE_URL": world.database_url, "INGEST_REDIS_URL": world.redis_url}
    world.start(
        "console-1",
        ["-m", "ingest", "console", "--port", str(port)],
        inherited | {"HOME": os.environ.get("HOME", "/")},
        ready=lambda: answers(port, "/health/live"),
    )
    for path in _paths(world):
        taken = [_first_byte_ms(port, path) for _ in range(_RUNS)]
        yield Timed(what=f"console {path}", median_ms=statistics.median(taken), worst_ms=max(taken))
    world.stop("console")


def _paths(world: World) -> Iterator[str]:
    yield from ("/", "/?range=day", "/?range=week", "/events", "/failures", "/live")
    yield from ("/processors", "/audit-log")
    engine = create_engine(parse(world.database_url), role=Role.OPERATOR)
    with engine.connect() as connection:
        week_ago = datetime.now(UTC) - timedelta(days=7)
        (old,) = events.events(connection, EventFilter(until=week_ago), limit=1)
        (dead,) = events.events(connection, EventFilter(state="dead"), limit=1)
    engine.dispose()
    message = old.event_id.partition(":")[2]
    yield f"/events/{old.id}"
    yield f"/events/{dead.id}"
    for q in (
        "type:message.received",
        "type:order.*",
        "type:tag.added",
        "type:none.such",
        *(f"state:{state}" for state in ("succeeded", "dead", "retrying", "pending", "unhandled")),
        "processor:messages",
        "source:awalchat",
        "since:1h",
        "until:7d",
        "type:order.* state:dead",
        "error:KeyError",
        "conversation:123",
        "phone:966500000123",
        "order:77",
        f"message:{message}",
        f"id:{old.id}",
        "data.conversation_id:123",
        f"data.message_id:{message}",
        f'"{message}"',
        '"a text that nobody wrote"',
    ):
        yield f"/events?q={quote(q)}"


def _first_byte_ms(port: int, path: str) -> float:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        began = time.perf_counter()
        client.request("GET", path)
        answer = client.getresponse()
        answer.read(1)
        taken = (time.perf_counter() - began) * 1000
        assert answer.status == 200, (path, answer.status)
        return taken
    finally:
        client.close()
