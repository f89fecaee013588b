"""What is behind: all that should have been done by now, and nothing else, at a bounded cost."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine

from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from ingest.store.pipeline import admission, jobs, processors
from ingest.store.pipeline.jobs import NewJobs
from ingest.store.pipeline.processors import Registered
from ingest.store.reports import behind
from ingest.store.reports.behind import Backlog
from tests.conftest import Servers
from tests.integration.test_overview_page import Read, overview, park, stats
from tests.support.deliver import deliver, order
from tests.support.rows import execute, rows
from tests.support.statistics import fill
from tests.support.work import explained

__all__ = ["overview", "stats"]
ORDERS = NewJobs(type="order.created", processor="orders", queue="events", max_attempts=3)
REGISTERED = Registered(
    name="orders",
    types=("order.created",),
    queue="events",
    batch=False,
    threads=1,
    max_attempts=3,
    timeout_s=30,
)
WAITING, LIMIT = 3_000, 100


def read(engine: Engine) -> Backlog:
    with engine.connect() as connection:
        return behind.read(connection)


def received(age_s: float) -> float:
    """A moment so many seconds ago, as Unix time."""
    return (datetime.now(UTC) - timedelta(seconds=age_s)).timestamp()


def admit(engine: Engine, deliveries: Sequence[UUID]) -> list[int]:
    """Admit deliveries; the jobs are pending, and Redis is presumed to know of them."""
    with engine.begin() as connection:
        admitted = admission.admit(
            connection, deliveries, [ORDERS], replay_queue="replay", redispatch_after_s=10
        )
    return [job.id for job in admitted.jobs]


def due(engine: Engine, ids: Sequence[int], *, in_s: float) -> None:
    execute(
        engine,
        "UPDATE jobs SET next_attempt_at = now() + make_interval(secs => :in_s)"
        " WHERE id = ANY(:ids)",
        ids=list(ids),
        in_s=in_s,
    )


def sample(
    engine: Engine, *, ago_s: float, jobs: int, age_s: float, is_least: bool = False
) -> None:
    execute(
        engine,
        "INSERT INTO backlog_samples VALUES (now() - make_interval(secs => :ago_s), 0, :jobs,"
        " :age_s, :is_least)",
        ago_s=ago_s,
        jobs=jobs,
        age_s=age_s,
        is_least=is_least,
    )


def test_deliveries_without_a_worker_and_jobs_that_are_due_are_behind(
    engine: Engine, database_url: str
) -> None:
    """Neither a worker nor a relay is there, and Redis is presumed to know of the jobs."""
    ids = admit(engine, deliver(database_url, [order(n) for n in range(5)]))
    due(engine, ids[:3], in_s=-90)
    due(engine, ids[3:], in_s=0)
    deliver(database_url, [order(n) for n in range(10, 14)], now=received(30), dispatch_grace_s=60)
    found = read(engine)
    assert (found.deliveries, found.jobs, found.total) == (4, 5, 9)
    assert (found.held, found.is_least) == (0, False)
    assert found.age_s == pytest.approx(90, abs=60)
    assert found.since is not None
    assert (found.now - found.since).total_seconds() == pytest.approx(found.age_s)
    assert (found.change_per_s, found.gone_in_s) == (None, None)  # nobody has measured before


def test_a_storm_of_retries_and_a_slow_replay_are_not_behind_before_their_time(
    engine: Engine, database_url: str
) -> None:
    ids = admit(engine, deliver(database_url, [order(n) for n in range(9)]))
    with engine.begin() as connection:
        jobs.requeue(
            connection,
            ids[:6],
            replay=1,
            queue="replay",
            delays_s=[0, 0, 250, 300, 3_000, 30_000],
        )
    due(engine, ids[6:], in_s=3_600)
    execute(engine, "UPDATE jobs SET state = 'retrying' WHERE id = ANY(:ids)", ids=ids[6:])
    assert read(engine).jobs == 2
    execute(
        engine,
        "INSERT INTO unadmitted (delivery, source, event_id, type, fingerprint, received_at, queue,"
        " hint_at, replay) SELECT id, source, event_id, type, fingerprint, received_at, 'replay',"
        " now() + CAST(CASE WHEN row_number() OVER (ORDER BY id) = 1 THEN '-1 s' ELSE '1 h' END"
        " AS interval), 1 FROM events",
    )
    assert read(engine).deliveries == 1


def test_what_is_paused_and_what_no_worker_takes_is_held_and_not_behind(
    engine: Engine, database_url: str
) -> None:
    park(engine, database_url)  # three jobs of a processor that is gone
    ids = admit(engine, deliver(database_url, [order(n) for n in range(20, 24)]))
    due(engine, ids, in_s=-60)
    with engine.begin() as connection:
        processors.register(connection, [REGISTERED])
        processors.pause(connection, "orders", by="amal", reason=None)
    found = read(engine)
    assert (found.total, found.held, found.since) == (0, 7, None)
    with engine.begin() as connection:
        processors.resume(connection, "orders")
    found = read(engine)
    assert (found.jobs, found.held) == (4, 3)


def test_since_when_it_is_behind_is_when_the_samples_begin_to_be_late(
    engine: Engine, database_url: str
) -> None:
    """The oldest of now is half a minute late, and for an hour something always was."""
    deliver(database_url, [order(n) for n in range(50)], now=received(30))
    sample(engine, ago_s=9_000, jobs=900, age_s=500)
    sample(engine, ago_s=3_700, jobs=2, age_s=1)
    for ago_s, waiting in ((3_600, 40), (1_800, 900), (400, 2_450)):
        sample(engine, ago_s=ago_s, jobs=waiting, age_s=15)
    found = read(engine)
    assert found.since is not None
    assert (found.now - found.since).total_seconds() == pytest.approx(3_615, abs=60)
    assert found.change_per_s == pytest.approx((50 - 2_450) / 400, rel=0.2)
    assert found.gone_in_s == pytest.approx(50 / 6, rel=0.3)


def test_samples_of_before_a_time_without_any_say_nothing_of_now(
    engine: Engine, database_url: str
) -> None:
    deliver(database_url, [order(1)], now=received(30))
    sample(engine, ago_s=3_600, jobs=40, age_s=15)
    found = read(engine)
    assert found.since is not None
    assert (found.now - found.since).total_seconds() == pytest.approx(30, abs=60)
    assert found.change_per_s is None


def test_where_counts_are_cut_the_speed_is_that_of_the_age(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(behind, "EXAMINED", 20)
    deliver(database_url, [order(n) for n in range(50)], now=received(1_000))
    sample(engine, ago_s=400, jobs=20, age_s=1_800, is_least=True)
    found = read(engine)
    assert (found.total, found.is_least, found.change_per_s) == (20, True, None)
    assert found.age_change == pytest.approx(-2, rel=0.2)
    assert found.gone_in_s == pytest.approx(500, rel=0.3)


def test_a_sample_is_what_is_behind_and_old_ones_are_forgotten(
    engine: Engine, database_url: str
) -> None:
    sample(engine, ago_s=9 * 86_400, jobs=1, age_s=1)
    deliver(database_url, [order(n) for n in range(3)], now=received(600))
    with engine.begin() as connection:
        behind.record(connection)
    (kept,) = rows(engine, "SELECT deliveries, jobs, age_s, is_least FROM backlog_samples")
    assert (kept["deliveries"], kept["jobs"], kept["is_least"]) == (3, 0, False)
    assert kept["age_s"] == pytest.approx(600, abs=60)


def test_the_cost_does_not_grow_with_what_waits(
    servers: Servers, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(servers.as_administrator(database_url), autocommit=True) as connection:
        connection.execute("SET search_path = ingest")
        fill(connection, WAITING)
        connection.execute("ANALYZE")
    engine = create_engine(parse(database_url), role=Role.OPERATOR)
    whole = read(engine)
    assert (whole.deliveries, whole.jobs > LIMIT, whole.is_least) == (WAITING, True, False)
    monkeypatch.setattr(behind, "EXAMINED", LIMIT)
    with engine.connect() as reading:
        found, taken = explained(reading, behind.read)
    engine.dispose()
    assert (found.deliveries, found.is_least) == (LIMIT, True)
    assert taken.rows <= 20 * LIMIT < WAITING, taken


def test_the_page_and_the_command_say_the_same(
    engine: Engine, database_url: str, overview: Read, stats: Read
) -> None:
    deliver(database_url, [order(n) for n in range(40)], now=received(125))
    sample(engine, ago_s=40, jobs=10_040, age_s=100)
    page = overview()
    assert "40 behind" in page
    assert "of these 40 deliveries to admit, 0 jobs due" in page
    assert "shrinks by" in page
    told = stats()
    assert "backlog\tdeliveries\t40\n" in told
    assert "backlog\tis_least\tFalse\n" in told
    assert "backlog\tgone_in_s\t" in told
