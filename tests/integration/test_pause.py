"""A paused processor's jobs wait, in nobody's way, and go on as they were when it is resumed."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from ingest import settings
from ingest.errors import NotFound
from ingest.ids import received_at
from ingest.store.pipeline import admission, jobs, processors
from ingest.store.pipeline.jobs import Claimant, Failure, Lease, NewJobs, Outcome
from ingest.store.pipeline.processors import ProcessorRecord, Registered
from ingest.store.reports import backlog, totals
from tests.integration.conftest import Sent
from tests.support.deliver import deliver, order
from tests.support.rows import execute, one, rows
from tests.support.slots import until_waiting
from workers.relay import sweep
from workers.relay.sweep import Relay

ORDERS = NewJobs(type="order.created", processor="orders", queue="events", max_attempts=3)
NOTIFY = NewJobs(type="order.created", processor="notify", queue="events", max_attempts=3)
AS_THEY_WERE = """
    SELECT id, processor, state, trigger, attempt, failures, max_attempts, next_attempt_at, worker,
           (SELECT count(*) FROM attempts WHERE job = jobs.id) AS attempts
    FROM jobs ORDER BY id
"""


@pytest.fixture(autouse=True)
def _registered(engine: Engine) -> None:
    register(engine)


def register(engine: Engine, **more: Any) -> None:
    """As a worker does when it starts."""
    found = [
        Registered(
            **{
                "name": name,
                "types": ("order.created",),
                "queue": "events",
                "batch": False,
                "threads": 1,
                "max_attempts": 3,
                "timeout_s": 30.0,
                **more,
            }
        )
        for name in ("orders", "notify")
    ]
    with engine.begin() as connection:
        processors.register(connection, found)


def pause(engine: Engine, name: str = "orders", **given: Any) -> None:
    with engine.begin() as connection:
        processors.pause(connection, name, **({"by": "sara", "reason": "CRM is down"} | given))


def resume(engine: Engine, name: str = "orders") -> None:
    with engine.begin() as connection:
        processors.resume(connection, name)


def record(engine: Engine, name: str = "orders") -> ProcessorRecord:
    with engine.connect() as connection:
        (found,) = (each for each in processors.all_of_them(connection) if each.name == name)
    return found


def make(engine: Engine, database_url: str, count: int) -> dict[str, list[int]]:
    """Jobs of so many events for both processors, due and unhinted; their ids by processor."""
    with engine.begin() as connection:
        admitted = admission.admit(
            connection,
            deliver(database_url, [order(n) for n in range(count)]),
            [ORDERS, NOTIFY],
            replay_queue="replay",
            redispatch_after_s=0,
        )
    return {
        name: [job.id for job in admitted.jobs if job.processor == name]
        for name in ("orders", "notify")
    }


def claim(engine: Engine, ids: Sequence[int]) -> list[Lease]:
    with engine.begin() as connection:
        claimed = jobs.claim(connection, ids, worker="w", lease_s=60, max_attempts=3)
    return [Lease(id=job.id, attempt=job.attempt) for job in claimed]


def fail(engine: Engine, held: Sequence[Lease], *, retry_in_s: float) -> None:
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


def relay(engine: Engine, **more: Any) -> tuple[Relay, Sent]:
    sent = Sent()
    return Relay(engine, sent, settings.load(**({"redispatch_after_s": 1000} | more))), sent


def hinted(sent: Sent) -> list[int]:
    return sorted(job for _, _, ids in sent.messages for job in ids)


def aside(engine: Engine) -> list[int]:
    """The jobs that are never due."""
    return [
        row["id"]
        for row in rows(engine, "SELECT id FROM jobs WHERE due_at = 'infinity' ORDER BY id")
    ]


def test_the_jobs_of_a_paused_processor_are_not_claimed(engine: Engine, database_url: str) -> None:
    ids = make(engine, database_url, 3)
    pause(engine)
    both = [*ids["orders"], *ids["notify"]]
    assert [each.id for each in claim(engine, both)] == ids["notify"]
    resume(engine)
    assert [each.id for each in claim(engine, both)] == ids["orders"]


def test_nor_are_they_claimed_as_they_are_made(engine: Engine, database_url: str) -> None:
    pause(engine)
    deliveries = deliver(database_url, [order(n) for n in range(3)])
    with engine.begin() as connection:
        admitted = admission.admit(
            connection,
            deliveries,
            [replace(ORDERS, claimed=3), replace(NOTIFY, claimed=2)],
            replay_queue="replay",
            redispatch_after_s=10,
            claimant=Claimant(worker="w", lease_s=60),
        )
    assert {job.processor for job in admitted.claimed} == {"notify"}
    assert sorted(job.processor for job in admitted.jobs) == ["notify"] + ["orders"] * 3
    waiting = rows(
        engine, "SELECT DISTINCT state, attempt, worker FROM jobs WHERE processor = 'orders'"
    )
    assert waiting == [{"state": "pending", "attempt": 0, "worker": None}]


def test_the_relay_puts_them_aside_and_hints_those_of_others_behind_them(
    engine: Engine, database_url: str
) -> None:
    ids = make(engine, database_url, 20)
    pause(engine)
    execute(
        engine,
        "UPDATE jobs SET next_attempt_at = now() - interval '1 h', hinted_until = NULL"
        " WHERE processor = 'orders'",
    )
    found, sent = relay(engine, relay_batch=5)
    for _ in range(6):
        found.sweep()
    assert hinted(sent) == ids["notify"]
    assert aside(engine) == ids["orders"]


def test_what_is_put_aside_is_not_hinted_nor_what_is_not_put_aside_yet(
    engine: Engine, database_url: str
) -> None:
    ids = make(engine, database_url, 3)
    pause(engine)

    def due(connection: Connection) -> list[int]:
        return sorted(jobs.dispatch_due(connection, "events", limit=100, ttl_s=0))

    with engine.begin() as connection:
        assert due(connection) == ids["notify"]
        assert jobs.park(connection, "events", ["orders"], limit=2) == 2
        assert due(connection) == ids["notify"]
        assert jobs.park(connection, "events", ["orders"], limit=100) == 1
        assert jobs.park(connection, "events", ["orders"], limit=100) == 0


def test_a_resume_brings_every_one_back_within_sweeps(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_PAUSED_JOBS_LIMIT", 3)
    ids = make(engine, database_url, 10)
    execute(engine, "UPDATE jobs SET queue = 'crm' WHERE id = ANY(:ids)", ids=ids["orders"][::2])
    fail(engine, claim(engine, ids["orders"][:4]), retry_in_s=0)
    before = rows(engine, AS_THEY_WERE)
    pause(engine)
    found, sent = relay(engine)
    for _ in range(4):
        found.sweep()
    assert aside(engine) == ids["orders"]
    assert hinted(sent) == ids["notify"]
    resume(engine)
    for _ in range(4):
        found.sweep()
    assert hinted(sent) == sorted(ids["orders"] + ids["notify"])
    assert rows(engine, AS_THEY_WERE) == before
    assert one(engine, "SELECT bool_or(parked) FROM processors") is False


def test_a_resume_of_one_leaves_the_other_paused(engine: Engine, database_url: str) -> None:
    ids = make(engine, database_url, 3)
    pause(engine, "orders")
    pause(engine, "notify")
    found, sent = relay(engine)
    found.sweep()
    assert aside(engine) == sorted(ids["orders"] + ids["notify"])
    resume(engine, "notify")
    found.sweep()
    found.sweep()
    assert aside(engine) == ids["orders"]
    assert hinted(sent) == ids["notify"]
    assert claim(engine, ids["orders"]) == []


def test_paused_again_at_once_they_stay_aside_and_come_back_later(
    engine: Engine, database_url: str
) -> None:
    ids = make(engine, database_url, 3)
    found, sent = relay(engine)
    for _ in range(3):
        pause(engine)
        found.sweep()
        resume(engine)
        pause(engine)
        found.sweep()
        assert aside(engine) == ids["orders"]
    resume(engine)
    found.sweep()
    assert aside(engine) == []
    assert hinted(sent) == sorted(ids["orders"] + ids["notify"])


def test_one_that_nobody_could_move_just_then_comes_back_later(
    engine: Engine, database_url: str
) -> None:
    """Somebody holds its row while the relay takes up the others, and lets it go as it was."""
    ids = make(engine, database_url, 3)
    pause(engine)
    found, sent = relay(engine)
    found.sweep()
    resume(engine)
    with engine.connect() as holding:
        holding.execute(
            text("SELECT FROM jobs WHERE id = :id FOR UPDATE"), {"id": ids["orders"][1]}
        )
        for _ in range(3):
            found.sweep()
        holding.rollback()
    found.sweep()
    assert aside(engine) == []
    assert hinted(sent) == sorted(ids["orders"] + ids["notify"])


def test_a_resume_waits_for_a_relay_that_puts_jobs_aside_and_brings_them_back(
    engine: Engine, database_url: str
) -> None:
    first = make(engine, database_url, 1)["orders"]
    pause(engine)
    found, sent = relay(engine)
    found.sweep()
    second = make(engine, database_url, 2)["orders"]
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as slow:
            paused, _ = processors.pause_changes(slow)
            assert jobs.park(slow, "events", paused, limit=100) == len(second) == 1
            resuming = pool.submit(resume, engine)
            until_waiting(engine, 1)
        resuming.result(300)
    for _ in range(2):
        found.sweep()
    assert aside(engine) == []
    assert {*first, *second} <= set(hinted(sent))


def test_time_that_passes_counts_nothing(engine: Engine, database_url: str) -> None:
    """A retry whose time comes while it waits is neither tried nor failed."""
    ids = make(engine, database_url, 2)
    fail(engine, claim(engine, ids["orders"]), retry_in_s=100)
    pause(engine)
    found, sent = relay(engine, redispatch_after_s=0.001)
    found.sweep()
    assert aside(engine) == []  # not due
    execute(
        engine,
        "UPDATE jobs SET next_attempt_at = now() - interval '1 h' WHERE processor = 'orders'",
    )
    before = rows(engine, AS_THEY_WERE)
    for _ in range(3):
        found.sweep()
        claim(engine, ids["orders"])
    assert aside(engine) == ids["orders"]
    assert set(hinted(sent)) == set(ids["notify"])
    assert rows(engine, AS_THEY_WERE) == before
    assert [row["failures"] for row in before if row["processor"] == "orders"] == [1, 1]
    resume(engine)
    found.sweep()
    assert [each.attempt for each in claim(engine, ids["orders"])] == [2, 2]


def test_what_runs_runs_to_its_end_and_what_fails_then_waits(
    engine: Engine, database_url: str
) -> None:
    ids = make(engine, database_url, 2)
    first, second = claim(engine, ids["orders"])
    pause(engine)
    with engine.begin() as connection:
        jobs.finish(connection, [first])
    fail(engine, [second], retry_in_s=0)
    states = [row for row in rows(engine, AS_THEY_WERE) if row["processor"] == "orders"]
    assert [(row["state"], row["failures"]) for row in states] == [
        ("succeeded", 0),
        ("retrying", 1),
    ]
    assert claim(engine, ids["orders"]) == []


def test_a_replay_of_a_paused_processors_jobs_waits_too(engine: Engine, database_url: str) -> None:
    ids = make(engine, database_url, 2)
    pause(engine)
    found, sent = relay(engine)
    found.sweep()
    with engine.begin() as connection:
        jobs.requeue(
            connection, ids["orders"], replay=1, queue="replay", delays_s=[0.0] * len(ids["orders"])
        )
    assert aside(engine) == []
    found.sweep()
    assert aside(engine) == ids["orders"]
    resume(engine)
    found.sweep()
    assert [job for queue, _, some in sent.messages for job in some if queue == "replay"] == []
    late = [sorted(some) for queue, _, some in sent.messages if queue == "replay.overdue"]
    assert late == [ids["orders"]]


def test_what_waits_aside_is_counted_as_waiting(engine: Engine, database_url: str) -> None:
    ids = make(engine, database_url, 3)
    fail(engine, claim(engine, ids["orders"][:1]), retry_in_s=0)
    pause(engine)
    relay(engine)[0].sweep()
    found = record(engine)
    assert (found.pending, found.retrying, found.running, found.dead) == (2, 1, 0, 0)
    with engine.connect() as connection:
        counted = totals.read(connection).jobs
    assert (counted.pending, counted.retrying) == (5, 1)


def test_what_waits_for_a_resume_is_not_called_late(engine: Engine, database_url: str) -> None:
    ids = make(engine, database_url, 2)
    oldest, newer = sorted({row["event"] for row in rows(engine, "SELECT event FROM jobs")})
    with engine.begin() as connection:
        held = [Lease(id=each, attempt=1) for each in ids["notify"][:1]]
        assert claim(engine, [held[0].id]) == held
        jobs.finish(connection, held)
    for paused, expected in ((False, oldest), (True, newer)):
        if paused:
            pause(engine)
        with engine.connect() as connection:
            assert backlog.oldest(connection).job == received_at(expected)
    relay(engine)[0].sweep()
    with engine.connect() as connection:
        assert backlog.oldest(connection).job == received_at(newer)
        resume(engine)
        assert backlog.oldest(connection).job == received_at(oldest)


def test_who_paused_and_why_is_kept_and_since_when(engine: Engine) -> None:
    assert record(engine).paused_at is None
    pause(engine)
    first = record(engine)
    assert (first.paused_by, first.pause_reason) == ("sara", "CRM is down")
    pause(engine, by="omar", reason=None)
    again = record(engine)
    assert (again.paused_by, again.pause_reason) == ("omar", None)
    assert again.paused_at == first.paused_at is not None
    resume(engine)
    ended = record(engine)
    assert (ended.paused_at, ended.paused_by, ended.pause_reason) == (None, None, None)
    assert record(engine, "notify").paused_at is None


def test_a_pause_outlives_the_workers_that_register_their_processors(engine: Engine) -> None:
    pause(engine)
    register(engine, max_attempts=7, types=("order.created", "order.updated"))
    found = record(engine)
    assert found.paused_at is not None
    assert (found.max_attempts, found.types) == (7, ("order.created", "order.updated"))


def test_a_processor_that_no_worker_has_registered_cannot_be_paused(engine: Engine) -> None:
    with pytest.raises(NotFound, match="has registered a processor nobody"):
        pause(engine, "nobody")
    with pytest.raises(NotFound, match="has registered a processor nobody"):
        resume(engine, "nobody")
