"""Groups of failures in tests: failing in one way, and counting as the relay does."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine

from ingest.store.failures import folding, records, settling
from ingest.store.failures.records import FailureRecord
from ingest.store.pipeline import jobs
from ingest.store.pipeline.jobs import Failure, Outcome
from tests.support.deliver import deliver, order
from tests.support.rows import execute, one, rows
from workers import Event, processor

PLACE = "shop.orders:total"


def declare(price: Callable[[int], object], **options: Any) -> None:
    """Declare a processor `p` of orders that calls `price` with the number of the order."""

    @processor("order.created", name="p", **options)
    def total(event: Event, db: Connection) -> None:
        price(event.data["order_id"])


def fail_jobs(
    engine: Engine,
    database_url: str,
    count: int = 1,
    *,
    error_type: str = "KeyError",
    place: str | None = PLACE,
    release: str | None = None,
    dies: bool = True,
    first: int = 0,
    **data: Any,
) -> list[int]:
    """Have new jobs of `p` fail once in one way, as a worker records it; return their ids."""
    events = deliver(database_url, [order(first + number, **data) for number in range(count)])
    ids = [running_job(engine, event) for event in events]
    fail_running(engine, ids, error_type=error_type, place=place, release=release, dies=dies)
    return ids


def running_job(engine: Engine, event: UUID) -> int:
    """A job of an event that a worker has just claimed."""
    execute(
        engine,
        "WITH taken AS (DELETE FROM unadmitted WHERE delivery = :event RETURNING *)"
        " INSERT INTO events SELECT delivery, source, event_id, type, fingerprint, received_at"
        " FROM taken",
        event=event,
    )
    with engine.begin() as connection:
        execute_in = connection.exec_driver_sql(
            "INSERT INTO jobs (event, processor, queue, state, trigger, attempt, failures,"
            " max_attempts, lease_until, started_at, worker) VALUES (%s, 'p', 'events', 'running',"
            " 'delivery', 1, 0, 3, now() + interval '1 min', clock_timestamp(), 'w') RETURNING id",
            (event,),
        )
        return int(execute_in.scalar_one())


def fail_running(
    engine: Engine,
    ids: list[int],
    *,
    error_type: str = "KeyError",
    place: str | None = PLACE,
    release: str | None = None,
    dies: bool = True,
) -> None:
    """Have running jobs fail as a worker records it."""
    with engine.begin() as connection:
        recorded = jobs.fail(
            connection,
            [failure(connection, job, error_type, place, dies) for job in ids],
            release=release,
        )
    assert recorded == set(ids)


def failure(
    connection: Connection, job: int, error_type: str, place: str | None, dies: bool
) -> Failure:
    """What a worker records of the last attempt of a job."""
    attempt = connection.exec_driver_sql("SELECT attempt FROM jobs WHERE id = %s", (job,))
    return Failure(
        id=job,
        attempt=attempt.scalar_one(),
        outcome=Outcome.FAILED,
        retry_in_s=None if dies else 0.0,
        error_type=error_type,
        error_message="no price for +966500000001",
        traceback='  File "/app/shop/orders.py", line 12, in total\nKeyError: 1',
        place=place,
    )


def claim_again(engine: Engine, ids: list[int]) -> None:
    """Have a worker claim retrying or requeued jobs."""
    with engine.begin() as connection:
        claimed = jobs.claim(connection, ids, worker="w", lease_s=60, max_attempts=9)
    assert [job.id for job in claimed] == sorted(ids)


def count(engine: Engine) -> None:
    """Count what has failed, and let groups change by themselves, as the relay does."""
    has_more = True
    while has_more:
        with engine.begin() as connection:
            assert folding.take_turn(connection)
            has_more = folding.fold(connection, now=datetime.now(UTC)).has_more
            folding.unmute(connection)
            settling.settle(connection)


def groups(engine: Engine) -> list[FailureRecord]:
    """All groups, the oldest first."""
    numbers = rows(engine, "SELECT id FROM failure_groups ORDER BY id")
    with engine.connect() as connection:
        return [records.one(connection, row["id"]) for row in numbers]


def group(engine: Engine) -> FailureRecord:
    """The only group."""
    (only,) = groups(engine)
    return only


def waiting(engine: Engine) -> int:
    """How many failed attempts are not counted yet."""
    return int(one(engine, "SELECT count(*) FROM ungrouped"))
