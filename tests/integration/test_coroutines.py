"""An async processor: its jobs run at once on an event loop, as well kept apart as others."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from sqlalchemy import Engine, text
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.integration.conftest import Worker
from tests.integration.outcomes import effects, job_states, make_tables, run_due
from tests.support.deliver import deliver, order
from tests.support.rows import execute, one, rows
from workers import Discard, Event, Snooze, processor

MakeWorker = Callable[..., Worker]
_INSERT = text("INSERT INTO effects VALUES (:order_id, :attempt)")


@pytest.fixture(autouse=True)
def _tables(engine: Engine) -> None:
    make_tables(engine)


async def effect(event: Event, db: AsyncConnection) -> None:
    await db.execute(_INSERT, {"order_id": event.data["order_id"], "attempt": event.attempt})


def orders(database_url: str, count: int) -> list[Any]:
    return deliver(database_url, [order(n) for n in range(count)])


def test_as_many_jobs_as_are_declared_run_at_once(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    here = 0
    together: list[asyncio.Event] = []

    @processor("order.created", in_flight=50)
    async def work(event: Event, db: AsyncConnection) -> None:
        nonlocal here
        here += 1
        together.append(together[0] if together else asyncio.Event())
        if here == 50:
            together[0].set()
        await together[0].wait()  # nobody passes until fifty are here
        await effect(event, db)

    make_worker().process(orders(database_url, 50))
    assert effects(engine) == list(range(50))
    assert set(job_states(engine).values()) == {"succeeded"}


def test_each_fails_discards_and_snoozes_alone(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", in_flight=10, max_attempts=3, retry_base_s=60)
    async def work(event: Event, db: AsyncConnection) -> None:
        await effect(event, db)
        match event.data["order_id"]:
            case 1:
                raise ValueError("no")
            case 2:
                raise Discard("not for us")
            case 3:
                raise Snooze(60)
            case 4:
                await db.execute(text("SELECT 1 / 0"))

    make_worker().process(orders(database_url, 30))
    states = job_states(engine)
    assert [states[n] for n in range(6)] == [
        *("succeeded", "retrying", "dead", "retrying", "retrying", "succeeded"),
    ]
    assert effects(engine) == [0, *range(5, 30)]
    assert one(engine, "SELECT max(attempt) FROM jobs") == 1


def test_a_call_that_never_uses_db_is_finished_as_well(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", in_flight=30)
    async def work(event: Event, db: AsyncConnection) -> None:
        await asyncio.sleep(0.001)

    make_worker().process(orders(database_url, 100))
    assert set(job_states(engine).values()) == {"succeeded"}
    assert one(engine, "SELECT sum(count) FROM activity WHERE what = 'succeeded'") == 100


def test_more_calls_than_connections_use_db_at_once(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", in_flight=100)
    async def work(event: Event, db: AsyncConnection) -> None:
        await effect(event, db)

    make_worker().process(orders(database_url, 300))
    assert effects(engine) == list(range(300))


def test_one_that_takes_its_time_holds_up_no_other(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    others: list[int] = []
    thirty: list[asyncio.Event] = []

    @processor("order.created", in_flight=8)
    async def work(event: Event, db: AsyncConnection) -> None:
        await effect(event, db)
        thirty.append(thirty[0] if thirty else asyncio.Event())
        if event.data["order_id"] == 0:
            await thirty[0].wait()
        others.append(event.data["order_id"])
        if len(others) == 30:
            thirty[0].set()

    make_worker().process(orders(database_url, 31))
    assert set(job_states(engine).values()) == {"succeeded"}


@pytest.mark.parametrize("swallows", [False, True])
def test_one_that_waits_too_long_is_cancelled_and_the_others_are_not(
    engine: Engine, database_url: str, make_worker: MakeWorker, swallows: bool
) -> None:
    @processor("order.created", in_flight=8, max_attempts=1, timeout_s=0.3)
    async def work(event: Event, db: AsyncConnection) -> None:
        await effect(event, db)
        if event.data["order_id"] == 2:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if not swallows:
                    raise

    make_worker().process(orders(database_url, 12))
    assert {n for n, state in job_states(engine).items() if state == "dead"} == {2}
    assert effects(engine) == [0, 1, *range(3, 12)]
    assert rows(engine, "SELECT outcome, error_type FROM attempts") == [
        {"outcome": "timed_out", "error_type": "TimeoutError"}
    ]


def test_a_time_out_inside_a_statement_harms_no_neighbour_of_the_transaction(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", in_flight=40, max_attempts=1, timeout_s=0.4)
    async def work(event: Event, db: AsyncConnection) -> None:
        await effect(event, db)
        if event.data["order_id"] % 10 == 3:
            await db.execute(text("SELECT pg_sleep(60)"))

    make_worker().process(orders(database_url, 40))
    slow = [3, 13, 23, 33]
    assert [n for n, state in job_states(engine).items() if state == "dead"] == slow
    assert effects(engine) == [n for n in range(40) if n not in slow]
    assert one(engine, "SELECT max(attempt) FROM jobs") == 1


def test_a_commit_that_is_refused_is_blamed_on_its_own_call(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", in_flight=40, max_attempts=1)
    async def work(event: Event, db: AsyncConnection) -> None:
        await effect(event, db)
        if event.data["order_id"] == 7:
            await db.execute(text("INSERT INTO checked VALUES (1)"))  # refused at the commit

    make_worker().process(orders(database_url, 40))
    assert [n for n, state in job_states(engine).items() if state == "dead"] == [7]
    assert effects(engine) == [n for n in range(40) if n != 7]


@pytest.mark.parametrize("how", ["commit", "rollback", "statement", "swallowed", "nested"])
def test_a_processor_cannot_end_its_transaction(
    engine: Engine, database_url: str, make_worker: MakeWorker, how: str
) -> None:
    @processor("order.created", in_flight=10, max_attempts=1)
    async def work(event: Event, db: AsyncConnection) -> None:
        await effect(event, db)
        if event.data["order_id"] != 4:
            return
        match how:
            case "commit":
                await db.commit()
            case "rollback":
                await db.rollback()
            case "statement":
                await db.execute(text("COMMIT"))
            case "swallowed":
                with contextlib.suppress(Exception):
                    await db.commit()
            case "nested":
                await db.begin_nested()

    make_worker().process(orders(database_url, 10))
    assert [n for n, state in job_states(engine).items() if state == "dead"] == [4]
    assert effects(engine) == [n for n in range(10) if n != 4]


def test_a_nested_part_may_fail_alone(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", in_flight=10)
    async def work(event: Event, db: AsyncConnection) -> None:
        with contextlib.suppress(Exception):
            async with db.begin_nested():
                await effect(event, db)
                await db.execute(text("SELECT 1 / 0"))
        assert await db.scalar(text("SELECT count(*) FROM checked")) == 0
        await effect(event, db)

    make_worker().process(orders(database_url, 10))
    assert effects(engine) == list(range(10))


def test_what_a_call_sets_ends_with_it(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    found: list[tuple[str, int]] = []

    @processor("order.created", in_flight=50)
    async def work(event: Event, db: AsyncConnection) -> None:
        path = await db.scalar(text("SHOW search_path"))
        tables = await db.scalar(text("SELECT count(*) FROM pg_class WHERE relname = 'mine'"))
        found.append((path, tables))
        await db.execute(text("SET search_path = pg_catalog"))
        await db.execute(text("CREATE TEMP TABLE mine (id int)"))

    make_worker().process(orders(database_url, 50))
    assert set(job_states(engine).values()) == {"succeeded"}
    assert len(set(found)) == 1
    assert found[0][1] == 0


def test_one_whose_lease_was_lost_has_its_effects_rolled_back_and_no_other(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", in_flight=20)
    async def work(event: Event, db: AsyncConnection) -> None:
        await effect(event, db)
        if event.data["order_id"] == 5 and event.attempt == 1:
            lose = "UPDATE jobs SET attempt = 2 WHERE event = :event"
            await asyncio.to_thread(execute, engine, lose, event=event.id)

    make_worker().process(orders(database_url, 20))
    assert effects(engine) == [n for n in range(20) if n != 5]
    states = job_states(engine)
    assert [n for n, state in states.items() if state != "succeeded"] == [5]


def test_each_call_logs_with_its_own_ids(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    seen: dict[str, list[Any]] = {}

    @processor("order.created", in_flight=20, name="logs")
    async def work(event: Event, db: AsyncConnection) -> None:
        ids = []
        for _ in range(3):
            ids.append(structlog.contextvars.get_contextvars()["id"])
            await asyncio.sleep(0.001)
        seen[event.id] = ids

    make_worker().process(orders(database_url, 20))
    assert len(seen) == 20
    assert all(ids == [event] * 3 for event, ids in seen.items())


def test_a_call_that_blocks_the_loop_is_told(
    engine: Engine, database_url: str, make_worker: MakeWorker, capsys: pytest.CaptureFixture[str]
) -> None:
    @processor("order.created", in_flight=2, name="blocks")
    async def work(event: Event, db: AsyncConnection) -> None:
        time.sleep(2.5)  # noqa: ASYNC251 - the mistake

    make_worker().process(orders(database_url, 1))
    printed = capsys.readouterr().out
    assert "loop_blocked" in printed
    assert "processor=blocks" in printed
    assert "test_coroutines.py" in printed
    assert set(job_states(engine).values()) == {"succeeded"}


def test_what_comes_back_from_a_lost_process_runs_apart(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    most = here = 0

    @processor("order.created", in_flight=20)
    async def work(event: Event, db: AsyncConnection) -> None:
        nonlocal most, here
        here += 1
        most = max(most, here)
        await asyncio.sleep(0.01)
        here -= 1

    worker = make_worker()
    worker.shutdown.begin()
    worker.process(orders(database_url, 6))
    execute(engine, "UPDATE jobs SET trigger = 'rescue'")
    run_due(engine, make_worker(name="test:2"))
    assert set(job_states(engine).values()) == {"succeeded"}
    assert most == 1


def test_at_the_end_of_the_drain_calls_are_interrupted_and_do_not_count(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", in_flight=4)
    async def work(event: Event, db: AsyncConnection) -> None:
        worker.shutdown.begin()
        await effect(event, db)
        await asyncio.sleep(60)

    worker = make_worker(name="test:2", worker_drain_s=0.5)
    worker.process(orders(database_url, 4))
    assert effects(engine) == []
    assert {row["outcome"] for row in rows(engine, "SELECT outcome FROM attempts")} == {"released"}


def test_db_is_refused_after_the_call(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    kept: list[AsyncConnection] = []
    late: list[str] = []

    @processor("order.created", in_flight=1)
    async def work(event: Event, db: AsyncConnection) -> None:
        for older in kept:
            try:
                await effect(event, older)
            except Exception as error:
                late.append(str(error))
        kept.append(db)

    make_worker().process(orders(database_url, 2))
    assert effects(engine) == []
    assert ["after its processor had returned" in sentence for sentence in late] == [True]
