"""What a great many jobs cost that no worker can take: parking them, counting them, taking them up,
and how soon a live processor's new events are worked on meanwhile."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection

from ingest import settings
from ingest.dispatch import Dispatcher
from ingest.redis_address import parse_redis
from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from ingest.store.pipeline import jobs
from ingest.store.reports import backlog, heartbeats, totals
from ingest.store.reports.heartbeats import ProcessIdentity
from tests.benchmarks.answers import Target
from tests.benchmarks.ours import Ours
from tests.benchmarks.stored import Timed
from tests.benchmarks.world import World
from workers.relay.parking import PARK_AFTER_S, Parking
from workers.relay.sweep import Relay

REMOVED = "removed"
_RUNS = 7
_MOST_SWEEPS = 1_000

# Due for an hour; their events are older than those of the live processor.
_SEED = """
    WITH made AS MATERIALIZED (
        SELECT gen_random_uuid() AS id FROM generate_series(1, %(count)s)
    ), known AS (
        INSERT INTO events (id, source, event_id, type, fingerprint, received_at)
        SELECT id, 'awalchat', id::text, 'order.created', sha256(id::text::bytea),
               now() - interval '1 h'
        FROM made
    )
    INSERT INTO jobs (event, processor, queue, state, trigger, attempt, failures, max_attempts,
                      next_attempt_at)
    SELECT id, %(processor)s, 'events', 'pending', 'delivery', 0, 0, 8, now() - interval '1 h'
    FROM made
"""


def seed(world: World, count: int) -> None:
    """Store `count` jobs that are due, of a processor that no worker has."""
    with world.connect() as connection:
        connection.execute(_SEED.encode(), {"count": count, "processor": REMOVED})


def sweeps(world: World, count: int) -> Iterator[Timed]:
    """Time a relay's sweeps as they park all of the jobs and take them up again."""
    with _house(world) as (make_relay, connection, live):
        relay = make_relay(PARK_AFTER_S)
        yield _timed("sweep of the relay, before", _often(relay.sweep))
        seed(world, count)
        yield from _reads("due", connection)
        live("live")
        relay = make_relay(0)
        parks = _until(relay.sweep, lambda: _due(world) == 0, between=lambda: live("live"))
        yield _timed("sweep that parks", parks)
        yield _timed("sweep of the relay, all parked", _often(relay.sweep))
        yield from _reads("parked", connection)
        live(REMOVED)
        relay = make_relay(PARK_AFTER_S)
        takes_up = _until(relay.sweep, lambda: _parked(world) == 0, between=lambda: live(REMOVED))
        yield _timed("sweep that takes up", takes_up)


def meanwhile(world: World, count: int, *, rate: float) -> Iterator[Timed]:
    """Time new events of a live processor, from receipt to effect, while such jobs are parked."""
    ours = Ours()
    target = Target(world, ours)
    ours.start_workers(world)
    world.fleet.until(lambda: _idle(world), what="the warm-up is done", timeout_s=60)
    with world.connect() as connection:
        connection.execute("CREATE TABLE warm_up AS SELECT event FROM jobs")
    seed(world, count)
    target.ask(count=int(rate * 2 * PARK_AFTER_S), connections=8, rate=rate)
    world.fleet.until(lambda: _idle(world), what="all are parked or done", timeout_s=300)
    with world.connect() as connection:
        rows = connection.execute(
            "SELECT extract(epoch FROM j.finished_at - e.received_at) FROM jobs j"
            " JOIN events e ON e.id = j.event WHERE j.state = 'succeeded'"
            " AND NOT EXISTS (SELECT FROM warm_up w WHERE w.event = e.id)"
        ).fetchall()
    yield _timed("live event to its effect, meanwhile", [float(row[0]) for row in rows])


def _reads(when: str, connection: Connection) -> Iterator[Timed]:
    for what, read in (
        ("count of what is parked", jobs.parked),
        ("counts of `stats`", totals.read),
        ("oldest that waits", backlog.oldest),
    ):
        yield _timed(f"{what}, all {when}", _often(lambda read=read: read(connection)))  # type: ignore[misc]


@contextmanager
def _house(
    world: World,
) -> Iterator[tuple[Callable[[float], Relay], Connection, Callable[[str], None]]]:
    """Yield three things: a function that returns a relay which parks after so many seconds, an
    operator's connection, and a function that reports a live worker of a processor."""
    given = settings.load(
        standalone=True, database_url=world.database_url, redis_url=world.redis_url
    )
    engine = create_engine(given.database, role=Role.RELAY)
    operator = create_engine(parse(world.database_url), role=Role.OPERATOR, pool_size=2)

    def live(processor: str) -> None:
        worker = ProcessIdentity(
            id=processor,
            kind="worker",
            host="h",
            pid=1,
            version="1",
            queues=("events", "replay"),
            processors=(processor,),
        )
        with operator.begin() as connection:
            heartbeats.upsert(connection, worker)

    dispatcher = Dispatcher(parse_redis(world.redis_url))

    def make_relay(park_after_s: float) -> Relay:
        parking = Parking(engine, clock=time.monotonic, after_s=park_after_s)
        return Relay(engine, dispatcher, given, parking=parking)

    with operator.connect() as connection:
        yield make_relay, connection, live
    dispatcher.close()
    engine.dispose()
    operator.dispose()


def _due(world: World) -> float:
    return world.value("SELECT count(*) FROM jobs WHERE due_at < 'infinity'")


def _parked(world: World) -> float:
    return world.value("SELECT count(*) FROM jobs WHERE due_at = 'infinity'")


def _idle(world: World) -> bool:
    return not world.value("SELECT count(*) FROM unadmitted") and not _due(world)


def _often(run: Callable[[], object]) -> Sequence[float]:
    return [_seconds(run) for _ in range(_RUNS)]


def _until(
    run: Callable[[], object], is_done: Callable[[], bool], *, between: Callable[[], None]
) -> Sequence[float]:
    """Time run after run until all is done; `between` them is not timed."""
    taken = []
    while not is_done():
        between()
        taken.append(_seconds(run))
        assert len(taken) < _MOST_SWEEPS
    return taken


def _seconds(run: Callable[[], object]) -> float:
    began = time.monotonic()
    run()
    return time.monotonic() - began


def _timed(what: str, seconds: Sequence[float]) -> Timed:
    return Timed(
        what=f"{what} ({len(seconds)} times)",
        median_ms=statistics.median(seconds) * 1000,
        worst_ms=max(seconds) * 1000,
    )
