"""An operator wants a job no more: dead, marked so, with an attempt that says who and why."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine

from ingest.errors import LeaseLost
from ingest.store.bulk import replay
from ingest.store.bulk.replay import Counts
from ingest.store.pipeline import admission, jobs
from ingest.store.pipeline.jobs import Failure, Lease, NewJobs, Outcome
from ingest.store.reports import event_detail
from ingest.store.search.filters import EventFilter
from tests.support.deliver import deliver, order
from tests.support.rows import one, rows

ORDERS = NewJobs(type="order.created", processor="orders", queue="events", max_attempts=3)
WHY = "Discarded by sara: nobody wants it."


def make(engine: Engine, deliveries: Sequence[UUID]) -> list[int]:
    with engine.begin() as connection:
        admitted = admission.admit(
            connection, deliveries, [ORDERS], replay_queue="replay", redispatch_after_s=1000
        )
    return [job.id for job in admitted.jobs]


def claim(engine: Engine, ids: Sequence[int]) -> list[Lease]:
    with engine.begin() as connection:
        claimed = jobs.claim(connection, ids, worker="w", lease_s=60, max_attempts=3)
    return [Lease(id=job.id, attempt=job.attempt) for job in claimed]


def fail(engine: Engine, held: Sequence[Lease], *, retry_in_s: float | None) -> None:
    with engine.begin() as connection:
        jobs.fail(
            connection,
            [
                Failure(
                    id=each.id, attempt=each.attempt, outcome=Outcome.FAILED, retry_in_s=retry_in_s
                )
                for each in held
            ],
        )


def discard(engine: Engine, ids: Sequence[int], *, by: int | None = 7) -> int:
    with engine.begin() as connection:
        return jobs.discard(connection, ids, replay=by, why=WHY)


def requeue(engine: Engine, ids: Sequence[int]) -> None:
    with engine.begin() as connection:
        jobs.requeue(connection, ids, replay=8, queue="replay", delays_s=[0.0] * len(ids))


def states(engine: Engine) -> list[tuple[Any, ...]]:
    """State, number of the last attempt, failures and whether it is discarded, job by job."""
    found = rows(
        engine,
        "SELECT state, attempt, failures, discarded_at IS NOT NULL AS discarded"
        " FROM jobs ORDER BY id",
    )
    return [tuple(row.values()) for row in found]


def attempts(engine: Engine, job: int) -> list[dict[str, Any]]:
    return rows(
        engine,
        "SELECT number, trigger, worker, outcome, error_message, replay FROM attempts"
        " WHERE job = :job ORDER BY number",
        job=job,
    )


def test_what_waits_is_dead_and_an_attempt_says_why(engine: Engine, database_url: str) -> None:
    pending, retrying = make(engine, deliver(database_url, [order(1), order(2)]))
    fail(engine, claim(engine, [retrying]), retry_in_s=100)
    assert discard(engine, [pending, retrying]) == 2
    assert states(engine) == [("dead", 1, 0, True), ("dead", 2, 1, True)]
    (kept,) = attempts(engine, pending)
    assert kept == {
        "number": 1,
        "trigger": "delivery",
        "worker": None,
        "outcome": "discarded",
        "error_message": WHY,
        "replay": 7,
    }
    first, second = attempts(engine, retrying)
    assert (first["outcome"], first["worker"]) == ("failed", "w")
    assert (second["outcome"], second["worker"], second["number"]) == ("discarded", None, 2)
    waiting = rows(engine, "SELECT next_attempt_at, hinted_until, due_at FROM jobs")
    assert [set(row.values()) for row in waiting] == [{None}, {None}]


def test_nobody_runs_it_any_more(engine: Engine, database_url: str) -> None:
    ids = make(engine, deliver(database_url, [order(1)]))
    discard(engine, ids)
    assert claim(engine, ids) == []
    with engine.begin() as connection:
        assert jobs.due(connection, ids) == []
        assert jobs.dispatch_due(connection, "events", limit=10, ttl_s=1) == []
        assert jobs.run_now(connection, ids) == 0


def test_a_dead_letter_is_marked_once(engine: Engine, database_url: str) -> None:
    ids = make(engine, deliver(database_url, [order(1)]))
    fail(engine, claim(engine, ids), retry_in_s=None)
    assert states(engine) == [("dead", 1, 1, False)]
    assert discard(engine, ids) == 1
    since = one(engine, "SELECT discarded_at FROM jobs")
    assert discard(engine, ids) == 0
    assert states(engine) == [("dead", 2, 1, True)]
    assert one(engine, "SELECT discarded_at FROM jobs") == since
    assert [row["outcome"] for row in attempts(engine, ids[0])] == ["failed", "discarded"]


def test_what_runs_and_what_succeeded_is_left_alone(engine: Engine, database_url: str) -> None:
    ids = make(engine, deliver(database_url, [order(1), order(2)]))
    running, succeeds = claim(engine, ids)
    with engine.begin() as connection:
        jobs.finish(connection, [succeeds])
    before = rows(engine, "SELECT * FROM jobs ORDER BY id")
    assert discard(engine, ids) == 0
    assert rows(engine, "SELECT * FROM jobs ORDER BY id") == before
    assert one(engine, "SELECT count(*) FROM attempts") == 0
    with engine.begin() as connection:
        jobs.finish(connection, [running])


def test_a_worker_that_wakes_up_over_a_discarded_job_changes_nothing(
    engine: Engine, database_url: str
) -> None:
    ids = make(engine, deliver(database_url, [order(1)]))
    stale = claim(engine, ids)
    fail(engine, stale, retry_in_s=100)  # its lease ended, somebody found out
    discard(engine, ids)
    before = rows(engine, "SELECT * FROM jobs")
    fail(engine, stale, retry_in_s=0)
    with pytest.raises(LeaseLost), engine.begin() as connection:
        jobs.finish(connection, stale)
    assert rows(engine, "SELECT * FROM jobs") == before


def test_it_needs_no_bulk_action_to_be_discarded(engine: Engine, database_url: str) -> None:
    ids = make(engine, deliver(database_url, [order(1)]))
    assert discard(engine, ids, by=None) == 1
    assert [row["replay"] for row in attempts(engine, ids[0])] == [None]


def test_one_that_is_put_back_is_discarded_no_more_and_its_history_stays(
    engine: Engine, database_url: str
) -> None:
    ids = make(engine, deliver(database_url, [order(1)]))
    discard(engine, ids)
    requeue(engine, ids)
    assert states(engine) == [("pending", 1, 0, False)]
    (held,) = claim(engine, ids)
    assert held.attempt == 2
    fail(engine, [held], retry_in_s=None)
    assert states(engine) == [("dead", 2, 1, False)]
    assert discard(engine, ids) == 1
    assert [row["outcome"] for row in attempts(engine, ids[0])] == [
        "discarded",
        "failed",
        "discarded",
    ]


def test_a_discarded_job_is_replayed_where_it_is_named_and_not_as_a_dead_letter(
    engine: Engine, database_url: str
) -> None:
    discarded, dead = deliver(database_url, [order(1), order(2)])
    ids = make(engine, [discarded, dead])
    fail(engine, claim(engine, ids), retry_in_s=None)
    discard(engine, ids[:1], by=None)

    def run(selection: EventFilter) -> Counts:
        with engine.connect() as connection:
            planned = replay.count(connection, selection)
        told = list(replay.run(engine, selection, requested_by="sara", reason=None, rate=None))
        done = told[-1] if told else Counts()
        assert done == planned
        return done

    assert run(EventFilter(state="dead")) == Counts(jobs=1)
    assert states(engine) == [("dead", 2, 1, True), ("pending", 1, 0, False)]
    assert run(EventFilter(ids=(discarded,))) == Counts(jobs=1)
    assert states(engine) == [("pending", 2, 0, False), ("pending", 1, 0, False)]
    with engine.connect() as connection:
        (job,) = event_detail.of_event(connection, discarded).jobs
    assert [(each.number, each.outcome) for each in job.attempts] == [
        (1, "failed"),
        (2, "discarded"),
    ]


def test_hastened_what_waits_is_due_at_once_and_nothing_else_changes(
    engine: Engine, database_url: str
) -> None:
    pending, retrying, running, dead = make(
        engine, deliver(database_url, [order(n) for n in range(4)])
    )
    fail(engine, claim(engine, [retrying]), retry_in_s=1000)
    claim(engine, [running])
    fail(engine, claim(engine, [dead]), retry_in_s=None)
    with engine.begin() as connection:
        assert jobs.dispatch_due(connection, "events", limit=10, ttl_s=1) == []
        assert jobs.run_now(connection, [pending, retrying, running, dead]) == 2
        assert sorted(jobs.dispatch_due(connection, "events", limit=10, ttl_s=1)) == [
            pending,
            retrying,
        ]
    assert states(engine) == [
        ("pending", 0, 0, False),
        ("retrying", 1, 1, False),
        ("running", 1, 0, False),
        ("dead", 1, 1, False),
    ]
    assert [held.id for held in claim(engine, [pending, retrying, running, dead])] == [
        pending,
        retrying,
    ]
