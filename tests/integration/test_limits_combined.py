"""Limits together with what else decides when a job runs: a breaker, async processors."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.integration.conftest import NoLeases, Worker
from tests.integration.outcomes import effect, effects, make_tables
from tests.support.breaking import NAME, House, Target
from tests.support.deliver import deliver, order
from tests.support.rows import execute, one, rows
from workers import Breaker, Event, processor
from workers.recovery import rescue
from workers.retry import RetryPolicy

MakeWorker = Callable[..., Worker]
AFTER = 3
EVENTS = 12


@pytest.fixture(autouse=True)
def _tables(engine: Engine) -> None:
    make_tables(engine)


@pytest.fixture
def target() -> Target:
    return Target()


MakeHouse = Callable[..., House]


@pytest.fixture
def make_house(
    engine: Engine, database_url: str, make_worker: MakeWorker, target: Target
) -> MakeHouse:
    def make(**limits: Any) -> House:
        @processor(
            "order.created", name=NAME, breaker=Breaker(after=AFTER), max_attempts=50, **limits
        )
        def crm(event: Event, db: Connection) -> None:
            target.call(event.data["order_id"])
            effect(event, db)

        return House(engine, database_url, make_worker())

    return make


LIMITS: dict[str, dict[str, Any]] = {
    "a line of all": {"concurrency": 100},
    "one at once": {"concurrency": 1},
    "keys": {"limit_by": "order_id", "key_concurrency": 1},
    "one of all keys at once": {"limit_by": "order_id", "concurrency": 1},
    "keys in order": {"concurrency": 100, "ordered_by": "order_id"},
}


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
def test_an_open_breaker_lets_its_probe_out_of_the_line_and_nothing_else(
    make_house: MakeHouse, target: Target, engine: Engine, limits: dict[str, Any]
) -> None:
    house = make_house(**limits)
    house.deliver(EVENTS)
    house.run()
    assert house.is_open()
    spent, calls = house.spent(), len(target.calls)
    house.run()
    assert (house.spent(), len(target.calls)) == (spent, calls)
    (probe,) = house.sweep(probe=True)
    house.run([job for job in house.waiting() if job != probe])  # whoever comes claims the probe
    assert (house.spent(), len(target.calls)) == (spent + 1, calls + 1)
    assert one(engine, "SELECT failures FROM jobs WHERE id = :id", id=probe) > 0
    assert house.is_open()
    target.error = None
    house.probe()
    assert not house.is_open()
    house.drain()
    assert effects(engine) == list(range(EVENTS))
    assert house.spent() == spent + 1


def test_a_probe_that_fails_goes_back_into_the_line_and_the_next_is_another(
    make_house: MakeHouse, target: Target
) -> None:
    house = make_house(concurrency=100)
    house.deliver(EVENTS)
    house.run()
    probes = [job for _ in range(4) for job in house.probe()]
    assert len(set(probes)) == 4
    assert house.is_open()
    target.error = None
    house.probe()
    house.drain()


def test_a_probe_waits_for_the_limits_of_its_key_and_is_tried_again(
    make_house: MakeHouse, target: Target, engine: Engine
) -> None:
    house = make_house(limit_by=lambda event: "all", key_concurrency=1)
    house.deliver(EVENTS)
    house.run()
    (probe,) = house.sweep(probe=True)
    neighbour = one(
        engine, "SELECT max(id) FROM jobs WHERE state = 'pending' AND id <> :id", id=probe
    )
    execute(
        engine,
        "UPDATE jobs SET state = 'running', lease_until = now() + interval '1 h', worker = 'other',"
        " next_attempt_at = NULL, hinted_until = NULL WHERE id = :id",
        id=neighbour,
    )
    execute(engine, "UPDATE limited_jobs SET claimed = true WHERE job = :id", id=neighbour)
    spent = house.spent()
    house.run([probe])
    assert house.spent() == spent
    soon = "hinted_until < now() + interval '50 min'"
    assert one(engine, f"SELECT {soon} FROM jobs WHERE id = :id", id=probe)
    execute(
        engine,
        "UPDATE jobs SET state = 'pending', lease_until = NULL, next_attempt_at = now()"
        " WHERE id = :id",
        id=neighbour,
    )
    target.error = None
    assert house.sweep() == [probe]
    house.run([probe])
    assert not house.is_open()
    house.drain()
    assert effects(engine) == list(range(EVENTS))


class Together:
    """How many async calls are at work at once."""

    def __init__(self) -> None:
        self._now = self.most = 0

    @contextmanager
    def working(self) -> Iterator[None]:
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            yield
        finally:
            self._now -= 1


@pytest.mark.parametrize("batch", [False, True])
def test_async_calls_are_no_more_at_once_than_the_concurrency(
    engine: Engine, database_url: str, make_worker: MakeWorker, batch: bool
) -> None:
    together, sizes = Together(), []

    async def one_of_them(event: Event, db: AsyncConnection) -> None:
        with together.working():
            await asyncio.sleep(0)
            await db.run_sync(partial(effect, event))

    async def list_of_them(events: list[Event], db: AsyncConnection) -> None:
        sizes.append(len(events))
        for event in events:
            await db.run_sync(partial(effect, event))

    declare = processor("order.created", name=NAME, concurrency=3, batch=batch)
    declare(list_of_them if batch else one_of_them)
    make_worker().process(deliver(database_url, [order(n) for n in range(40)]))
    assert effects(engine) == list(range(40))
    assert max([together.most, *sizes]) == 3


def test_an_async_job_that_comes_back_from_a_lost_process_runs_by_itself(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    together, ran = Together(), Counter[int]()

    @processor("order.created", name=NAME, concurrency=10)
    async def work(event: Event, db: AsyncConnection) -> None:
        with together.working():
            ran[event.data["order_id"]] += 1
            await asyncio.sleep(0)
            await db.run_sync(partial(effect, event))

    worker = make_worker(leases=NoLeases())
    worker.process(deliver(database_url, [order(n) for n in range(4)]))
    execute(
        engine,
        "UPDATE jobs SET state = 'running', lease_until = now(), worker = 'gone', attempt = 1,"
        " finished_at = NULL",
    )
    execute(engine, "TRUNCATE effects")
    rescue.recover_expired(
        engine, RetryPolicy(base_s=0, cap_s=0), random=lambda low, _: low, limit=10
    )
    together.most = 0
    worker.process(jobs=[row["id"] for row in rows(engine, "SELECT id FROM jobs")])
    assert effects(engine) == list(range(4))
    assert together.most == 1
