"""An async processor: its jobs run at once on an event loop, as well kept apart as others."""

import asyncio
import concurrent.futures
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import structlog
from sqlalchemy import Connection, Engine, text
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.integration.conftest import Worker
from tests.integration.outcomes import effects, job_states, make_tables, run_due
from tests.support.deliver import deliver, order
from tests.support.rows import execute, one, rows
from tests.support.waiting import until
from workers import Discard, Event, Snooze, beside, processor, wiring
from workers.batches import Result
from workers.coroutines import loop
from workers.coroutines.calls import CallRunner
from workers.timeouts.watchdog import Watchdog

MakeWorker = Callable[..., Worker]
_INSERT = text("INSERT INTO effects VALUES (:order_id, :attempt)")


@pytest.fixture(autouse=True)
def _tables(engine: Engine) -> None:
    make_tables(engine)


@dataclass
class Order:
    order_id: int


def until_it_sleeps(engine: Engine) -> None:
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    until(lambda: one(engine, sleeping), what="the statement runs")


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
    @processor("order.created", in_flight=8, max_attempts=1, timeout_s=5)
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


def test_a_call_that_cannot_be_prepared_fails_and_leaves_nothing(
    engine: Engine, database_url: str, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    @processor("order.created", retry_base_s=60, retry_max_delay_s=60)
    async def work(event: Event, db: AsyncConnection) -> None:
        await effect(event, db)

    def refuse(_watchdog: Watchdog, _at: float) -> None:
        raise RuntimeError("unable to start watchdog thread")

    async def noted(runner: CallRunner, *given: Any) -> Result:
        runners.append(runner)
        return await run(runner, *given)

    runners: list[CallRunner] = []
    run = CallRunner.run
    monkeypatch.setattr(CallRunner, "run", noted)
    monkeypatch.setattr(Watchdog, "extend", refuse)
    make_worker().process(orders(database_url, 1))
    assert job_states(engine) == {0: "retrying"}
    assert [runner.running for runner in runners] == [{}]


def test_a_time_out_inside_a_statement_harms_no_neighbour_of_the_transaction(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", in_flight=40, max_attempts=1, timeout_s=5)
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
    engine: Engine, database_url: str, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(
        loop.log, "warning", lambda event, **values: told.append((event, values)), raising=False
    )

    @processor("order.created", in_flight=2, name="blocks")
    async def work(event: Event, db: AsyncConnection) -> None:
        while not told:
            time.sleep(0.01)  # noqa: ASYNC251 - the mistake

    make_worker().process(orders(database_url, 1))
    ((event, values),) = told
    assert (event, values["processor"]) == ("loop_blocked", "blocks")
    assert "test_coroutines.py" in values["where"]
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


def test_a_statement_of_a_task_that_nobody_awaits_fails_the_call(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", in_flight=2, max_attempts=1)
    async def work(event: Event, db: AsyncConnection) -> None:
        await effect(event, db)
        if event.data["order_id"] == 1:
            sleeps = asyncio.ensure_future(db.execute(text("SELECT pg_sleep(600)")))
            await asyncio.to_thread(until_it_sleeps, engine)
            assert not sleeps.done()

    make_worker().process(orders(database_url, 3))
    assert job_states(engine) == {0: "succeeded", 1: "dead", 2: "succeeded"}
    assert effects(engine) == [0, 2]
    assert one(engine, "SELECT error_type FROM attempts") == "StillInUse"


def test_a_list_is_halved_until_the_events_that_fail_are_found(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", batch=True, max_attempts=1)
    async def work(events: list[Event], db: AsyncConnection) -> None:
        for event in events:
            await effect(event, db)
        if any(event.data["order_id"] == 4 for event in events):
            raise ValueError("no")

    make_worker().process(orders(database_url, 9))
    assert [n for n, state in job_states(engine).items() if state == "dead"] == [4]
    assert effects(engine) == [0, 1, 2, 3, 5, 6, 7, 8]


@pytest.mark.parametrize("writes", [True, False])
def test_jobs_of_a_key_run_one_after_another(
    engine: Engine, database_url: str, make_worker: MakeWorker, writes: bool
) -> None:
    began: list[tuple[int, int]] = []
    here: set[int] = set()

    @processor("order.created", in_flight=20, ordered_by="customer")
    async def work(event: Event, db: AsyncConnection) -> None:
        customer = event.data["customer"]
        assert customer not in here
        here.add(customer)
        began.append((customer, event.data["order_id"]))
        await asyncio.sleep(0)
        if writes:
            await effect(event, db)
        here.remove(customer)

    bodies = [order(n, customer=n % 4) for n in range(24)]
    make_worker().process(deliver(database_url, bodies))
    assert set(job_states(engine).values()) == {"succeeded"}
    for customer in range(4):
        assert [n for of, n in began if of == customer] == list(range(customer, 24, 4))


def test_calls_without_effects_that_end_together_are_finished_in_one_transaction(
    engine: Engine, database_url: str, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait_for_all(running: Any, **_: object) -> Any:
        return concurrent.futures.wait(running)

    @processor("order.created", in_flight=50)
    async def work(event: Event, db: AsyncConnection) -> None: ...

    monkeypatch.setattr(beside, "wait", wait_for_all)
    make_worker().process(orders(database_url, 50))
    assert set(job_states(engine).values()) == {"succeeded"}
    assert one(engine, "SELECT count(DISTINCT xmin::text) FROM jobs") == 1


def test_one_without_effects_whose_lease_was_lost_is_left_alone(
    engine: Engine, database_url: str, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait_for_all(running: Any, **_: object) -> Any:
        return concurrent.futures.wait(running)

    @processor("order.created", in_flight=20)
    async def work(event: Event, db: AsyncConnection) -> None:
        if event.data["order_id"] == 5:
            lose = "UPDATE jobs SET attempt = 2 WHERE event = :event"
            await asyncio.to_thread(execute, engine, lose, event=event.id)

    monkeypatch.setattr(beside, "wait", wait_for_all)
    make_worker().process(orders(database_url, 20))
    states = job_states(engine)
    assert [n for n, state in states.items() if state != "succeeded"] == [5]
    assert one(engine, "SELECT sum(count) FROM activity WHERE what = 'succeeded'") == 19


def test_data_is_read_as_the_model_and_a_mismatch_is_discarded(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    seen: list[int] = []

    async def work(event: Event[Order], db: AsyncConnection) -> None:
        seen.append(event.data.order_id)

    processor("order.created")(work)
    make_worker().process([*orders(database_url, 2), *deliver(database_url, [order("x")])])  # type: ignore[arg-type]
    assert sorted(seen) == [0, 1]
    assert one(engine, "SELECT outcome FROM attempts") == "discarded"


def test_rows_are_streamed(engine: Engine, database_url: str, make_worker: MakeWorker) -> None:
    seen: list[int] = []

    @processor("order.created")
    async def work(event: Event, db: AsyncConnection) -> None:
        async with db.stream(text("SELECT generate_series(1, 3)")) as found:
            seen.extend([row[0] async for row in found])
        seen.append(await db.run_sync(lambda sync: sync.scalar(text("SELECT 4"))))

    make_worker().process(orders(database_url, 1))
    assert seen == [1, 2, 3, 4]
    assert set(job_states(engine).values()) == {"succeeded"}


def test_an_async_function_behind_a_plain_decorator_fails_and_says_so(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    async def hidden() -> None: ...

    @processor("order.created", max_attempts=1)
    def work(event: Event, db: Connection) -> object:
        hiding = hidden()
        coroutines.append(hiding)
        return hiding

    coroutines: list[Any] = []
    make_worker().process(orders(database_url, 1))
    coroutines[0].close()
    assert one(engine, "SELECT error_type FROM attempts") == "NotAwaited"


def test_a_connection_that_the_server_has_closed_is_replaced(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", in_flight=1)
    async def work(event: Event, db: AsyncConnection) -> None:
        pid = await db.scalar(text("SELECT pg_backend_pid()"))
        await effect(event, db)
        if event.data["order_id"] == 0:
            pids.append(pid)

    pids: list[int] = []
    worker = make_worker()
    worker.process(orders(database_url, 1))
    execute(engine, f"SELECT pg_terminate_backend({pids[0]}, 10000)")
    worker.process(deliver(database_url, [order(1)]))
    assert effects(engine) == [0, 1]
    assert one(engine, "SELECT max(attempt) FROM jobs") == 1


def test_a_kept_engine_level_connection_cannot_commit(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", in_flight=4, max_attempts=1)
    async def work(event: Event, db: AsyncConnection) -> None:
        await effect(event, db)
        if event.data["order_id"] == 1:
            await db.run_sync(lambda connection: connection.commit())

    make_worker().process(orders(database_url, 4))
    assert [n for n, state in job_states(engine).items() if state == "dead"] == [1]
    assert effects(engine) == [0, 2, 3]
    assert one(engine, "SELECT error_type FROM attempts") == "TransactionEnded"


def test_as_many_transactions_are_registered_as_it_may_have_at_once(
    engine: Engine, make_worker: MakeWorker
) -> None:
    processor("order.created", name="many", in_flight=500)(effect)
    processor("order.created", name="few", in_flight=5)(effect)
    with engine.begin() as connection:
        wiring.register(make_worker().registry, connection)
    registered = rows(engine, "SELECT name, threads FROM processors ORDER BY name")
    assert registered == [{"name": "few", "threads": 5}, {"name": "many", "threads": 20}]


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
