"""Half of many stored events removed while others come in: how fast, what it does to answers and
effects beside it, what is freed, and what admission costs with an empty and with a full memory."""

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import timedelta

import psycopg

from ingest.store import past_events
from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from ingest.store.retention import obstacles
from ingest.store.retention.ages import Ages
from ingest.store.retention.progress import EVENTS
from tests.benchmarks import plans, stored
from tests.benchmarks.ours import Ours
from tests.benchmarks.sustained import Lease, Line
from tests.benchmarks.world import World
from workers.relay.retention import Retention

_HALF = timedelta(days=15)
"""The age at which the older half goes: what is stored is of thirty days."""
_ROUNDS = 40
_TABLES = ("events", "jobs", "deliveries", "past_events")
_SIZES = """
    SELECT sum(pg_table_size(c.oid)), sum(pg_indexes_size(c.oid)) FROM pg_class c
    WHERE relkind = 'r' AND relnamespace = 'ingest'::regnamespace
      AND (relname = %(table)s OR relname LIKE %(table)s || '\\_20%%')
"""
_REMEMBER = f"""
    INSERT INTO past_events
    SELECT {past_events.digest("'awalchat'", "'message.received:' || i")}, '\\x0011223344556677',
           gen_random_uuid(), DATE '2025-01-01' + CAST(i / 100000 AS integer)
    FROM generate_series(1, %(count)s::bigint) AS i
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure."""

    what: str
    value: float
    unit: str


def measure(world: World, *, events: int, rate: float, seconds: float) -> Iterator[Figure]:
    """Store `events`, take requests at `rate`, first without the removal and then beside it."""
    ours = Ours()
    ours.prepare(world)
    began = time.monotonic()
    stored.seed(world, events)
    yield Figure(what="stored", value=time.monotonic() - began, unit="s")
    yield from _sizes(world, "before", events)
    line = Line(world, ours)
    yield from _load("without removal", line.offer(rate, seconds))
    line.settle()
    yield from _removal(world, line, rate, seconds)
    line.settle()
    world.stop("worker", "relay", "receiver")
    kept = int(world.value("SELECT count(*) FROM events"))
    yield Figure(what="events kept", value=kept, unit="")
    yield from _sizes(world, "after", kept)
    with world.connect() as connection:
        began = time.monotonic()
        connection.execute("VACUUM (ANALYZE) events")
        connection.execute("VACUUM (ANALYZE) jobs")
        yield Figure(what="vacuum of events and jobs", value=time.monotonic() - began, unit="s")
    yield from _sizes(world, "vacuumed", kept)


def _load(when: str, held: Lease) -> Iterator[Figure]:
    if held.result is None:
        yield Figure(what=f"given up {when}: effects fell behind", value=held.lags_s[-1], unit="s")
        return
    yield Figure(what=f"answers {when}", value=held.result.rate, unit="a second")
    for name in ("p50", "p95", "p99", "worst"):
        yield Figure(what=f"answer {when}, {name}", value=getattr(held.result, name), unit="ms")
    lags = sorted(held.lags_s)
    yield Figure(what=f"effect behind {when}, median", value=statistics.median(lags), unit="s")
    yield Figure(what=f"effect behind {when}, worst", value=lags[-1], unit="s")


def _removal(world: World, line: Line, rate: float, seconds: float) -> Iterator[Figure]:
    """Remove the older half beside the load, which is offered for as long as that takes."""
    engine = create_engine(parse(world.database_url), role=Role.RELAY)
    with engine.begin() as connection:
        obstacles.refuse_older_code(connection)
    with world.connect() as driver:
        driver.execute("UPDATE retention SET closed_at = now() - interval '1 h'")
    retention = Retention(engine, Ages(events=_HALF), stop=threading.Event(), clock=time.time)
    ended: list[float] = []

    def run() -> None:
        retention.run_once()
        ended.append(time.monotonic())

    thread = threading.Thread(target=run)
    scanned = world.value(_SCANNED)
    spent, began = world.cpu_s(), time.monotonic()
    thread.start()
    held = [line.offer(rate, seconds)]
    while thread.is_alive():
        held.append(line.offer(rate, seconds))
    thread.join()
    elapsed, after = time.monotonic() - began, world.cpu_s()
    took = ended[0] - began
    removed = world.value(f"SELECT removed FROM retention WHERE kind = '{EVENTS}'")
    yield from _load("beside the removal", held[0])
    worst = max(one.result.worst for one in held if one.result)
    yield Figure(what="answer beside the removal, worst of all", value=worst, unit="ms")
    yield Figure(what="events removed", value=removed, unit="")
    yield Figure(what="removal", value=removed / took, unit="events a second")
    cpu = after["postgres"] - spent["postgres"]
    yield Figure(what="CPU of PostgreSQL meanwhile", value=cpu / elapsed, unit="cores")
    yield Figure(
        what="rows read from end to end", value=world.value(_SCANNED) - scanned, unit="rows"
    )
    engine.dispose()


_SCANNED = (
    "SELECT sum(seq_tup_read) FROM pg_stat_user_tables"
    " WHERE relname IN ('events', 'jobs', 'duplicates', 'past_events', 'attempts', 'unadmitted')"
)


def _sizes(world: World, when: str, events: int) -> Iterator[Figure]:
    for table in _TABLES:
        with world.connect() as connection:
            row = connection.execute(_SIZES.encode(), {"table": table}).fetchone()
        assert row is not None
        for part, size in zip(("table", "indexes"), row, strict=True):
            what = f"{table} {when}, {part}"
            yield Figure(what=what, value=float(size or 0) / 2**20, unit="MiB")
            yield Figure(what=f"{what}, an event", value=float(size or 0) / events, unit="B")


def admission(world: World, *, remembered: int) -> Iterator[Figure]:
    """What PostgreSQL spends on the admission of an event, with an empty and with a full memory."""
    Ours().prepare(world)
    with ExitStack() as stack:
        full = plans.clone(world, "remembering")
        lines = {"empty": stack.enter_context(_line(world.database_url))}
        with psycopg.connect(full, autocommit=True) as connection:
            connection.execute("SET search_path = ingest, pg_catalog")
            connection.execute(_REMEMBER.encode(), {"count": remembered})
            connection.execute("VACUUM (ANALYZE) past_events")
        lines[f"{remembered:,} events"] = stack.enter_context(_line(full))
        for _ in range(_ROUNDS):
            for line in lines.values():
                line.round(reads=False)
        for memory, line in lines.items():
            median = statistics.median(line.taken_us["admit"])
            yield Figure(what=f"admission, memory: {memory}", value=median, unit="us of CPU")


def _line(url: str) -> AbstractContextManager[plans.Line]:
    return plans.Line.open(url, is_prepared=True)
