"""Async processors in the tests of their authors."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from workers import Event, processor, registry
from workers.registry import Declaration
from workers.testing import Pipeline, under_faults


@pytest.fixture(autouse=True)
def _declared(monkeypatch: pytest.MonkeyPatch) -> None:
    declarations: list[Declaration] = []
    monkeypatch.setattr(registry, "declared", declarations)


@pytest.fixture(autouse=True)
def _table(pipeline: Pipeline) -> None:
    pipeline.db.execute(text("CREATE TABLE notes (id text PRIMARY KEY)"))


def notes(pipeline: Pipeline) -> int:
    count: int = pipeline.db.execute(text("SELECT count(*) FROM notes")).scalar_one()
    return count


async def note(event: Event, db: AsyncConnection) -> None:
    await asyncio.sleep(0)
    statement = text("INSERT INTO notes VALUES (:id) ON CONFLICT DO NOTHING RETURNING id")
    await db.scalar(statement, {"id": event.id})


@under_faults
def test_it_runs_in_the_transaction_of_the_test(pipeline: Pipeline) -> None:
    processor("order.created")(note)
    orders = [pipeline.event("order.created", order_id=n) for n in (1, 2)]
    assert all(attempt.succeeded for attempt in pipeline.run_all(note, orders))
    assert notes(pipeline) == 2


def test_what_a_failing_call_wrote_is_rolled_back(pipeline: Pipeline) -> None:
    @processor("order.created", max_attempts=2)
    async def work(event: Event, db: AsyncConnection) -> None:
        await note(event, db)
        raise ValueError("no")

    attempts = pipeline.run_until_done(work, pipeline.event("order.created"))
    assert [attempt.outcome for attempt in attempts] == ["failed", "failed"]
    assert attempts[-1].error == "ValueError: no"
    assert notes(pipeline) == 0


def test_a_call_that_waits_too_long_is_timed_out(pipeline: Pipeline) -> None:
    @processor("order.created", timeout_s=1)
    async def work(event: Event, db: AsyncConnection) -> None:
        await note(event, db)
        await asyncio.sleep(600)

    assert pipeline.run(work, pipeline.event("order.created")).outcome == "timed_out"
    assert notes(pipeline) == 0


def test_it_may_not_commit_here_either(pipeline: Pipeline) -> None:
    @processor("order.created")
    async def work(event: Event, db: AsyncConnection) -> None:
        await db.commit()

    attempt = pipeline.run(work, pipeline.event("order.created"))
    assert attempt.error is not None
    assert attempt.error.startswith("TransactionEnded")


def test_savepoints_and_streams_work(pipeline: Pipeline) -> None:
    @processor("order.created")
    async def work(event: Event, db: AsyncConnection) -> None:
        async with db.begin_nested():
            await note(event, db)
        async with db.stream(text("SELECT id FROM notes")) as found:
            assert [row.id async for row in found] == [event.id]

    assert pipeline.run(work, pipeline.event("order.created")).succeeded
