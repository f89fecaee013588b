"""A processor with threads: its jobs run at once, as well kept apart as one after another."""

import concurrent.futures
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures._base import DoneAndNotDoneFutures

import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from tests.integration.conftest import Worker
from tests.integration.outcomes import effect, effects, job_states, make_tables
from tests.support.deliver import deliver, order
from tests.support.refuse import refuse_connections
from tests.support.rows import one, rows
from workers import Discard, Event, Snooze, beside, processor
from workers.batches import Result

MakeWorker = Callable[..., Worker]


@pytest.fixture(autouse=True)
def _tables(engine: Engine) -> None:
    make_tables(engine)


def test_as_many_jobs_as_it_has_threads_run_at_once(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    together = threading.Barrier(5, timeout=300)

    @processor("order.created", threads=5)
    def work(event: Event, db: Connection) -> None:
        effect(event, db)
        together.wait()  # nobody passes until five are here

    make_worker().process(deliver(database_url, [order(n) for n in range(5)]))
    assert effects(engine) == list(range(5))
    assert set(job_states(engine).values()) == {"succeeded"}


def test_one_that_takes_its_time_holds_up_no_other(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    others = threading.Semaphore(0)

    @processor("order.created", threads=4)
    def work(event: Event, db: Connection) -> None:
        if event.data["order_id"] == 0:
            assert all(others.acquire(timeout=300) for _ in range(30))
        else:
            others.release()

    make_worker().process(deliver(database_url, [order(n) for n in range(31)]))
    assert set(job_states(engine).values()) == {"succeeded"}


def test_each_fails_discards_and_snoozes_alone(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", threads=4, max_attempts=3, retry_base_s=60)
    def work(event: Event, db: Connection) -> None:
        effect(event, db)
        match event.data["order_id"]:
            case 1:
                raise ValueError("no")
            case 2:
                raise Discard("not for us")
            case 3:
                raise Snooze(60)

    make_worker().process(deliver(database_url, [order(n) for n in range(6)]))
    assert job_states(engine) == {
        0: "succeeded",
        1: "retrying",
        2: "dead",
        3: "retrying",
        4: "succeeded",
        5: "succeeded",
    }
    assert effects(engine) == [0, 4, 5]
    assert {row["outcome"] for row in rows(engine, "SELECT outcome FROM attempts")} == {
        "failed",
        "discarded",
        "snoozed",
    }


def test_one_that_loops_is_timed_out_and_the_others_are_not(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", threads=4, max_attempts=1, timeout_s=3)
    def work(event: Event, db: Connection) -> None:
        effect(event, db)
        while event.data["order_id"] == 2:
            time.sleep(0.01)

    make_worker().process(deliver(database_url, [order(n) for n in range(8)]))
    assert {n for n, state in job_states(engine).items() if state == "dead"} == {2}
    assert effects(engine) == [0, 1, 3, 4, 5, 6, 7]
    assert one(engine, "SELECT outcome FROM attempts") == "timed_out"


def test_leases_are_renewed_while_threads_work(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", threads=3)
    def work(event: Event, db: Connection) -> None:
        effect(event, db)
        time.sleep(1.5)  # longer than the lease

    make_worker(lease_s=0.6).process(deliver(database_url, [order(n) for n in range(3)]))
    assert set(job_states(engine).values()) == {"succeeded"}
    assert one(engine, "SELECT max(attempt) FROM jobs") == 1


def test_what_could_not_be_begun_in_time_is_handed_back(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", threads=2)
    def work(event: Event, db: Connection) -> None:
        time.sleep(0.05)

    worker = make_worker(task_budget_s=0.2)
    worker.process(deliver(database_url, [order(n) for n in range(60)]))
    handed_back = sum(len(jobs) for _, _, jobs in worker.sent.messages)
    states = list(job_states(engine).values())
    assert 0 < handed_back < 60
    assert states.count("pending") == handed_back
    assert states.count("succeeded") == 60 - handed_back


Futures = Mapping[Future[Result], object]


def one_by_one(running: Futures, **_: object) -> DoneAndNotDoneFutures[Result]:
    """In place of `wait`: threads never end in the same moment."""
    first = next(concurrent.futures.as_completed(running))
    return DoneAndNotDoneFutures({first}, set(running) - {first})


def all_at_once(running: Futures, **_: object) -> DoneAndNotDoneFutures[Result]:
    """In place of `wait`: they always do."""
    return concurrent.futures.wait(running)


@pytest.mark.parametrize(
    ("refused", "wait"),
    [
        (1, one_by_one),
        (1, all_at_once),
        (2, one_by_one),
        (2, all_at_once),
    ],
)
def test_how_some_end_is_recorded_although_others_could_not_begin(
    refused: int,
    wait: Callable[..., object],
    engine: Engine,
    database_url: str,
    make_worker: MakeWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @processor("order.created", threads=5)
    def work(event: Event, db: Connection) -> None:
        assert all_refused.wait(300)
        raise ValueError("no")

    monkeypatch.setattr(beside, "wait", wait)
    worker = make_worker()
    all_refused = refuse_connections(worker.effects, refused)
    with pytest.raises(OperationalError, match="too many clients"):
        worker.process(deliver(database_url, [order(n) for n in range(5)]))
    states = sorted(job_states(engine).values())
    assert states == ["retrying"] * (5 - refused) + ["running"] * refused
    failed = {"outcome": "failed", "error_type": "ValueError", "error_message": "no"}
    told = rows(engine, "SELECT outcome, error_type, error_message FROM attempts")
    assert told == [failed] * (5 - refused)
