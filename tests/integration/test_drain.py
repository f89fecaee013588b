"""A worker process that is told to end: what runs ends or is given back, nothing else begins."""

import signal
import time
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, Engine

from tests.integration.conftest import Worker
from tests.integration.outcomes import effect, effects, job_states, make_tables, run_due
from tests.support.deliver import deliver, order
from tests.support.rows import rows
from workers import Event, processor

MakeWorker = Callable[..., Worker]
ATTEMPTS = "SELECT DISTINCT outcome, error_type FROM attempts ORDER BY outcome"
SPENT = "SELECT DISTINCT state, failures, trigger FROM jobs"


@pytest.fixture(autouse=True)
def _tables(engine: Engine) -> None:
    make_tables(engine)


def end_worker() -> None:
    """What the main process of a worker does to its children."""
    signal.raise_signal(signal.SIGUSR2)


def test_what_has_begun_ends_as_ever_and_the_rest_is_handed_on(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    is_ending = True

    @processor("order.created")
    def work(event: Event, db: Connection) -> None:
        effect(event, db)
        if is_ending:
            end_worker()

    worker = make_worker()
    worker.process(deliver(database_url, [order(n) for n in range(30)]))
    done = len(effects(engine))
    assert 0 < done < 30  # the first slice
    ((_, _, handed_on), *more) = worker.sent.messages
    assert len(handed_on) + sum(len(ids) for _, _, ids in more) == 30 - done
    assert set(job_states(engine).values()) == {"succeeded", "pending"}
    worker.process(deliver(database_url, [order(100)]))
    assert len(effects(engine)) == done
    is_ending = False
    run_due(engine, make_worker(name="test:2"))
    assert len(effects(engine)) == 31


@pytest.mark.parametrize(("batch", "threads"), [(False, 1), (True, 1), (False, 3)])
def test_what_runs_past_the_drain_time_is_released_and_spends_no_attempt(
    engine: Engine, database_url: str, make_worker: MakeWorker, batch: bool, threads: int
) -> None:
    is_slow = True

    @processor("order.created", max_attempts=1, batch=batch, threads=threads)
    def work(event: Event | list[Event], db: Connection) -> None:
        for one in event if isinstance(event, list) else [event]:
            effect(one, db)
        if is_slow:
            worker.shutdown.begin() if threads > 1 else end_worker()
        while is_slow:
            time.sleep(0.01)

    worker = make_worker(worker_drain_s=0.2)
    worker.process(deliver(database_url, [order(n) for n in range(3)]))
    assert effects(engine) == []
    assert rows(engine, ATTEMPTS) == [{"outcome": "released", "error_type": "InterruptedError"}]
    assert rows(engine, SPENT) == [{"state": "retrying", "failures": 0, "trigger": "retry"}]
    is_slow = False
    run_due(engine, make_worker(name="test:2"))
    assert effects(engine) == [0, 1, 2]
    assert set(job_states(engine).values()) == {"succeeded"}
