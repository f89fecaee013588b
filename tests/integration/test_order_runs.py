"""Runs: consecutive jobs of a key that a worker claims at once, and what becomes of the rest of one
when a job of it does not succeed."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from ingest.store.pipeline import jobs
from ingest.store.pipeline.jobs import ClaimedJob, Lease
from tests.integration.conftest import Worker
from tests.integration.test_order import drain, leftovers, note, ran, register, states, steps
from tests.support.deliver import deliver
from tests.support.rows import execute, one, rows
from workers import Discard, Event, processor
from workers.recovery import rescue
from workers.retry import RetryPolicy

MakeWorker = Callable[..., Worker]
NAME = "shipping"
RULES = RetryPolicy(base_s=0.001, cap_s=0.001)


@pytest.fixture(autouse=True)
def _tables(engine: Engine) -> None:
    execute(engine, "CREATE TABLE ran (place serial, key text, step int, attempt int)")


def attempts(engine: Engine) -> list[tuple[int, int, str]]:
    """Of each attempt that did not succeed, the step of its event, its number and its outcome."""
    found = rows(
        engine,
        "SELECT e.event_id, a.number, a.outcome FROM attempts a JOIN jobs j ON j.id = a.job"
        " JOIN events e ON e.id = j.event ORDER BY e.id, a.number",
    )
    return [(int(row["event_id"].split("-")[1]), row["number"], row["outcome"]) for row in found]


def claimed_at_once(engine: Engine) -> list[int]:
    """How many jobs each claim has taken, by the time at which they began."""
    found = rows(
        engine, "SELECT count(*) AS jobs FROM jobs GROUP BY started_at ORDER BY started_at"
    )
    return [row["jobs"] for row in found]


def test_consecutive_jobs_of_a_key_are_claimed_at_once(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, ordered_by="order_id")
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    make_worker().process(deliver(database_url, steps(1, *range(8))))
    assert claimed_at_once(engine) == [8]
    assert ran(engine, 1) == list(range(8))
    assert leftovers(engine) == 0


@pytest.mark.parametrize("options", [{"batch": True}, {"threads": 2}])
def test_lists_and_threads_have_one_job_of_a_key_at_a_time(
    engine: Engine, database_url: str, make_worker: MakeWorker, options: dict[str, Any]
) -> None:
    @processor("order.*", name=NAME, ordered_by="order_id", **options)
    def work(events: Any, db: Connection) -> None:
        for event in events if options.get("batch") else [events]:
            note(event, db)

    make_worker().process(deliver(database_url, steps(1, *range(4))))
    assert claimed_at_once(engine) == [1, 1, 1, 1]
    assert ran(engine, 1) == [0, 1, 2, 3]


def test_what_follows_a_failure_is_given_back_and_has_spent_no_attempt(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    called: list[int] = []

    @processor("order.*", name=NAME, ordered_by="order_id", max_attempts=5)
    def work(event: Event, db: Connection) -> None:
        called.append(event.data["step"])
        if event.data["step"] == 2 and event.attempt == 1:
            raise ConnectionError
        note(event, db)

    worker = make_worker()
    worker.process(deliver(database_url, steps(1, *range(5))))
    assert called == [0, 1, 2]
    assert states(engine) == {"succeeded": 2, "retrying": 1, "behind": 2}
    assert attempts(engine) == [(2, 1, "failed")]
    drain(engine, worker)
    assert ran(engine, 1) == [0, 1, 2, 3, 4]
    assert attempts(engine) == [(2, 1, "failed")]
    assert one(engine, "SELECT sum(attempt) FROM jobs") == 6
    assert leftovers(engine) == 0


@pytest.mark.parametrize(
    ("on_dead", "then"), [("wait", [0]), ("skip", [0, 2, 3])], ids=["waits", "skips"]
)
def test_what_follows_a_dead_letter_in_a_run_does_as_declared(
    engine: Engine, database_url: str, make_worker: MakeWorker, on_dead: str, then: list[int]
) -> None:
    @processor("order.*", name=NAME, ordered_by="order_id", on_dead=on_dead)
    def work(event: Event, db: Connection) -> None:
        if event.data["step"] == 1:
            raise Discard("no")
        note(event, db)

    worker = make_worker()
    register(engine, worker)
    worker.process(deliver(database_url, [*steps(1, 0, 1, 2, 3), *steps(2, 0, 2)]))
    drain(engine, worker)
    assert ran(engine, 1) == then
    assert ran(engine, 2) == [0, 2]
    assert attempts(engine) == [(1, 1, "discarded")]


def test_a_transaction_that_breaks_in_a_run_is_done_again_up_to_the_job_that_broke_it(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, ordered_by="order_id", max_attempts=5)
    def work(event: Event, db: Connection) -> None:
        note(event, db)
        if event.data["step"] == 2 and event.attempt == 1:
            driver = db.connection.driver_connection
            assert driver is not None
            driver.close()

    worker = make_worker()
    worker.process(deliver(database_url, [*steps(1, *range(4)), *steps(2, 0, 1)]))
    assert one(engine, "SELECT count(*) FROM keys_in_work") == 0
    drain(engine, worker)
    assert attempts(engine) == [(2, 1, "failed")]
    assert one(engine, "SELECT sum(attempt) FROM jobs WHERE state = 'succeeded'") == 7
    assert ran(engine, 1) == [0, 1, 2, 3]
    assert ran(engine, 2) == [0, 1]
    assert leftovers(engine) == 0


def test_the_last_of_a_run_may_break_the_transaction(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    """The key is in work of the last one; while the others run again, nobody else has it."""
    seen: list[int] = []

    @processor("order.*", name=NAME, ordered_by="order_id", max_attempts=5)
    def work(event: Event, db: Connection) -> None:
        note(event, db)
        if event.data["step"] == 2 and event.attempt == 1:
            driver = db.connection.driver_connection
            assert driver is not None
            driver.close()
        elif one(engine, "SELECT count(*) FROM attempts") == 1:
            seen.append(one(engine, "SELECT count(*) FROM keys_in_work"))

    worker = make_worker()
    worker.process(deliver(database_url, steps(1, *range(3))))
    assert seen[:2] == [1, 1]
    assert one(engine, "SELECT count(*) FROM keys_in_work") == 0
    drain(engine, worker)
    assert ran(engine, 1) == [0, 1, 2]
    assert leftovers(engine) == 0


@pytest.mark.parametrize("erased", [0, 1, 3])
def test_a_job_that_is_revoked_while_its_run_is_at_work_stops_what_is_behind_it(
    engine: Engine, database_url: str, make_worker: MakeWorker, erased: int
) -> None:
    once: list[None] = []

    @processor("order.*", name=NAME, ordered_by="order_id")
    def work(event: Event, db: Connection) -> None:
        note(event, db)
        if not once:
            once.append(None)
            with engine.begin() as another:
                jobs.revoke(another, [arrived[erased]], why="erased")
            assert one(engine, "SELECT count(*) FROM keys_in_work") == 1

    worker = make_worker()
    arrived = deliver(database_url, steps(1, *range(4)))
    worker.process(arrived)
    drain(engine, worker)
    assert ran(engine, 1) == [step for step in range(4) if step != erased]
    assert attempts(engine) == [(erased, 1, "discarded")]
    assert leftovers(engine) == 0


def test_a_run_whose_process_dies_is_abandoned_and_blames_the_job_that_ran(
    engine: Engine, database_url: str, make_worker: MakeWorker, tmp_path: Path
) -> None:
    @processor("order.*", name=NAME, ordered_by="order_id", max_attempts=5)
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    run, alive = _claimed_by(engine, database_url, make_worker, "lost", 3)
    lost = Worker(engine, database_url, tmp_path, [], name="lost", effects=alive.effects)
    lost.record(Lease(id=run[1].id, attempt=1))
    lost.vanish()
    assert rescue.recover_crashed(engine, tmp_path, RULES, random=random.uniform) == 3
    assert attempts(engine) == [(0, 1, "released"), (1, 1, "lost"), (2, 1, "released")]
    assert one(engine, "SELECT count(*) FROM keys_in_work") == 0
    drain(engine, alive)
    assert ran(engine, 1) == [0, 1, 2]
    assert leftovers(engine) == 0


def test_a_part_of_a_run_that_is_rescued_alone_lets_nobody_else_have_the_key(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    """A rescuer takes back so many jobs at a time."""

    @processor("order.*", name=NAME, ordered_by="order_id", max_attempts=5)
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    run, alive = _claimed_by(engine, database_url, make_worker, "stalled", 3)
    execute(engine, "UPDATE jobs SET lease_until = now() - interval '1 s'")
    execute(
        engine,
        "UPDATE jobs SET lease_until = now() - interval '2 s' WHERE id = :last",
        last=run[-1].id,
    )
    assert rescue.recover_expired(engine, RULES, limit=1, random=random.uniform) == 1
    drain(engine, alive)
    assert ran(engine, 1) == []
    assert one(engine, "SELECT count(*) FROM keys_in_work") == 1
    assert rescue.recover_expired(engine, RULES, limit=100, random=random.uniform) == 2
    drain(engine, alive)
    assert ran(engine, 1) == [0, 1, 2]
    assert leftovers(engine) == 0


def _claimed_by(
    engine: Engine, database_url: str, make_worker: MakeWorker, name: str, length: int
) -> tuple[list[ClaimedJob], Worker]:
    """Have a run claimed by a worker that is never heard of again; return it, and another."""
    alive = make_worker(name="alive")
    register(engine, alive)
    with engine.begin() as db:
        db.execute(text("UPDATE ingest.processors SET paused_at = now()"))
    alive.process(deliver(database_url, steps(1, *range(length))))
    with engine.begin() as db:
        db.execute(text("UPDATE ingest.processors SET paused_at = NULL"))
    ids = [row["id"] for row in rows(engine, "SELECT id FROM jobs ORDER BY event")]
    with engine.begin() as db:
        run = jobs.claim_ordered(
            db, ids, worker=name, lease_s=60, max_attempts=5, limit=100, of_a_key=length
        ).jobs
    assert [job.id for job in run] == ids
    return run, alive


def test_what_is_not_held_any_more_is_not_given_back(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, ordered_by="order_id")
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    run, _ = _claimed_by(engine, database_url, make_worker, "stalled", 3)
    held = [Lease(id=job.id, attempt=job.attempt) for job in run]
    execute(engine, "UPDATE jobs SET lease_until = now() - interval '1 s'")
    assert rescue.recover_expired(engine, RULES, limit=100, random=random.uniform) == 3
    waiting = "SELECT id, state, trigger, attempt, due_at::text FROM jobs ORDER BY id"
    before = rows(engine, waiting)
    with engine.begin() as db:
        jobs.give_back(db, held[1:], keys=[])
    assert rows(engine, waiting) == before


def test_a_processor_outside_is_not_called_behind_a_failure(
    engine: Engine, database_url: str, make_worker: MakeWorker, declared: list[Any]
) -> None:
    called: list[int] = []

    @processor("order.*", name=NAME, ordered_by="order_id", max_attempts=5)
    def work(event: Event, _: object) -> None:
        called.append(event.data["step"])
        if event.data["step"] == 1 and event.attempt == 1:
            raise ConnectionError

    worker = make_worker()
    object.__setattr__(worker.registry.get(NAME), "is_outside", True)
    worker.process(deliver(database_url, steps(1, *range(3))))
    assert called == [0, 1]
    drain(engine, worker)
    assert called == [0, 1, 1, 2]
    assert leftovers(engine) == 0
