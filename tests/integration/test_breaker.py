"""A target that is down parks its processor: no attempt is spent but those of the probes."""

import asyncio
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from concurrent.futures._base import DoneAndNotDoneFutures
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy.ext.asyncio import AsyncConnection

from ingest.store.pipeline import breakers, jobs
from tests.integration.conftest import Worker
from tests.integration.outcomes import effect, effects, make_tables
from tests.support.breaking import NAME, House, Target
from tests.support.rows import execute, one, rows
from workers import (
    Breaker,
    Discard,
    Event,
    HTTPStatus5xx,
    RetryAfter,
    Snooze,
    beside,
    processor,
    registry,
)
from workers.batches import Result
from workers.destinations import GoneAway
from workers.recovery import rescue
from workers.retry import RetryPolicy

MakeWorker = Callable[..., Worker]
AFTER = 10
_INSERT = text("INSERT INTO effects VALUES (:order_id, :attempt)")


@pytest.fixture(autouse=True)
def _tables(engine: Engine) -> None:
    make_tables(engine)


@pytest.fixture
def target() -> Target:
    return Target()


@pytest.fixture
def make_house(
    engine: Engine, database_url: str, make_worker: MakeWorker, target: Target
) -> Callable[..., House]:
    def make(
        call: Callable[..., Any] | None = None,
        *,
        breaker: Breaker | None = None,
        is_outside: bool = False,
        **declared: Any,
    ) -> House:
        def crm(event: Event, db: Connection) -> None:
            target.call(event.data["order_id"])
            effect(event, db)

        given: dict[str, Any] = {"name": NAME, "breaker": breaker or Breaker(after=AFTER)}
        processor("order.created", **given | {"max_attempts": 50} | declared)(call or crm)
        registry.declared[-1] = replace(registry.declared[-1], is_outside=is_outside)
        return House(engine, database_url, make_worker())

    return make


MakeHouse = Callable[..., House]


def test_so_many_failures_in_a_row_park_the_processor(
    make_house: MakeHouse, target: Target
) -> None:
    house = make_house()
    house.deliver(30)
    assert house.is_open()
    assert len(target.calls) == house.spent() == AFTER
    assert house.sweep() == []
    (parked,) = house.parked()
    assert (parked.processor, parked.reason, parked.jobs) == (NAME, "breaker_open", 30)
    assert parked.since == house.breaker.opened_at
    house.run()
    assert len(target.calls) == AFTER


def test_a_breaker_counts_over_all_messages_and_workers(
    make_house: MakeHouse, make_worker: MakeWorker, target: Target
) -> None:
    house = make_house()
    other = make_worker(name="test:2")
    for n in range(AFTER - 1):
        house.worker = other if n % 2 else house.worker
        house.deliver(1, first=n)
    assert not house.is_open()
    assert house.breaker.failures == AFTER - 1
    house.deliver(1, first=50)
    assert house.is_open()


def test_a_success_begins_the_count_anew(make_house: MakeHouse, target: Target) -> None:
    house = make_house()
    house.deliver(AFTER - 1)
    target.error = None
    house.deliver(1, first=50)
    assert house.breaker.failures == 0
    target.error = ConnectionError("refused")
    house.deliver(AFTER - 1, first=100)
    assert (house.is_open(), house.breaker.failures) == (False, AFTER - 1)


def test_failures_before_a_success_of_the_same_slice_are_in_no_row_with_those_after_it(
    make_house: MakeHouse, engine: Engine
) -> None:
    def crm(event: Event, db: Connection) -> None:
        if event.data["order_id"] != AFTER - 1:
            raise ConnectionError("refused")

    house = make_house(crm)
    house.deliver(2 * AFTER - 2)
    assert house.states() == {"succeeded": 1, "retrying": 2 * AFTER - 3}
    assert (house.is_open(), house.breaker.failures) == (False, AFTER - 2)


class Turns:
    """Lets calls that run beside each other end in the order of their events, and has the worker
    see so many ends at once when all have ended."""

    def __init__(self, count: int, *, at_once: int) -> None:
        self._turns: list[Future[None]] = [Future() for _ in range(count)]
        self._had = 0
        self._ended: list[Future[Result]] = []
        self._at_once = at_once

    def of(self, event: Event) -> Future[None]:
        """What an event's call waits for before it ends."""
        number: int = event.data["order_id"]
        return self._turns[number]

    def wait(self, running: Mapping[Future[Result], object], **_: object) -> object:
        """In place of `concurrent.futures.wait`."""
        while pending := set(running) - set(self._ended):
            self._turns[self._had].set_result(None)
            self._had += 1
            self._ended += wait(pending, timeout=300, return_when=FIRST_COMPLETED).done
        seen = [future for future in self._ended if future in running][: self._at_once]
        return DoneAndNotDoneFutures(set(seen), set(running) - set(seen))


def fail_but_each_third(event: Event) -> None:
    if event.data["order_id"] % 3 != 2:
        raise ConnectionError("refused")


@pytest.mark.parametrize("at_once", [8, 2])
@pytest.mark.parametrize("how", ["threads", "async", "async with effects"])
def test_failures_of_calls_beside_each_other_are_in_a_row_as_they_ended(
    make_house: MakeHouse, monkeypatch: pytest.MonkeyPatch, how: str, at_once: int
) -> None:
    turns = Turns(8, at_once=at_once)

    def on_a_thread(event: Event, db: Connection) -> None:
        turns.of(event).result(timeout=300)
        fail_but_each_third(event)

    async def on_the_loop(event: Event, db: AsyncConnection) -> None:
        await asyncio.wrap_future(turns.of(event))
        fail_but_each_third(event)
        if how == "async with effects":
            await db.execute(_INSERT, {"order_id": event.data["order_id"], "attempt": 1})

    monkeypatch.setattr(beside, "wait", turns.wait)
    breaker = Breaker(after=3)
    if how == "threads":
        house = make_house(on_a_thread, breaker=breaker, threads=8)
    else:
        house = make_house(on_the_loop, breaker=breaker, in_flight=8)
    house.deliver(8)
    assert house.states() == {"succeeded": 2, "retrying": 6}
    assert (house.is_open(), house.breaker.failures) == (False, 2)


@pytest.mark.parametrize("uses_db", [True, False])
def test_of_a_list_of_an_async_processor_they_are_in_no_row_either(
    make_house: MakeHouse, uses_db: bool
) -> None:
    async def crm(events: Sequence[Event], db: AsyncConnection) -> None:
        if uses_db:
            await db.execute(text("SELECT 1"))
        if any(event.data["order_id"] % 2 == 0 for event in events):
            raise ConnectionError("refused")

    house = make_house(crm, breaker=Breaker(after=3), batch=True)
    house.deliver(9)
    assert house.states() == {"succeeded": 4, "retrying": 5}
    assert (house.is_open(), house.breaker.failures) == (False, 1)


def test_of_calls_outside_a_transaction_they_are_in_no_row_either(make_house: MakeHouse) -> None:
    def crm(event: Event, engine: Engine) -> None:
        fail_but_each_third(event)

    house = make_house(crm, breaker=Breaker(after=3), is_outside=True)
    house.deliver(8)
    assert house.states() == {"succeeded": 2, "retrying": 6}
    assert (house.is_open(), house.breaker.failures) == (False, 2)


def test_the_probe_alone_is_claimed_and_closes_the_breaker(
    make_house: MakeHouse, target: Target, engine: Engine
) -> None:
    house = make_house()
    house.deliver(30)
    assert house.sweep() == []
    target.error = None
    target.calls.clear()
    (probe,) = house.sweep(probe=True)
    house.run([job for job in house.waiting() if job != probe])
    assert target.calls == []
    house.run([probe])
    assert len(target.calls) == 1
    assert one(engine, "SELECT state FROM jobs WHERE id = :id", id=probe) == "succeeded"
    breaker = house.breaker
    assert (breaker.opened_at, breaker.failures, breaker.probe_at) == (None, 0, None)
    assert (breaker.closed_at is not None, breaker.closed_by) == (True, None)
    house.drain()
    assert effects(engine) == list(range(30))
    assert house.spent() == AFTER
    assert house.parked() == []


def test_a_probe_that_fails_is_counted_and_the_next_is_another_job(
    make_house: MakeHouse, target: Target
) -> None:
    house = make_house()
    house.deliver(30)
    house.sweep()
    probes = [job for _ in range(5) for job in house.probe()]
    assert len(set(probes)) == 5
    assert house.spent() == AFTER + 5
    assert (house.breaker.probes, house.breaker.failures) == (5, AFTER + 5)
    failures = [row["failures"] for row in rows(house.engine, "SELECT failures FROM jobs")]
    assert max(failures) == 1
    assert house.is_open()


def test_no_probe_is_due_before_its_time(make_house: MakeHouse) -> None:
    house = make_house(breaker=Breaker(after=1, probe_every_s=500))
    house.deliver(5)
    assert house.sweep() == house.sweep() == []
    opened, due = house.breaker.opened_at, house.breaker.probe_at
    assert opened
    assert due
    assert timedelta(seconds=499) < due - opened < timedelta(seconds=560)
    house.probe()
    again = house.breaker.probe_at
    assert again
    assert again - datetime.now(UTC) > timedelta(seconds=400)
    assert house.sweep() == []


def test_jobs_that_were_in_work_when_it_opened_spend_nothing(
    make_house: MakeHouse, engine: Engine, target: Target
) -> None:
    everybody = threading.Barrier(8, timeout=300)

    def crm(event: Event, db: Connection) -> None:
        everybody.wait()
        raise ConnectionError("refused")

    house = make_house(crm, breaker=Breaker(after=3), threads=8, max_attempts=1)
    house.deliver(8)
    assert house.states() == {"dead": 3, "retrying": 5}
    assert house.spent() == 3
    told = [
        row["error_message"]
        for row in rows(engine, "SELECT error_message FROM attempts WHERE outcome = 'released'")
    ]
    assert len(told) == 5
    assert all("this attempt does not count" in message for message in told)
    assert one(engine, "SELECT sum(failures) FROM jobs WHERE state = 'retrying'") == 0


@pytest.mark.parametrize("is_async", [False, True])
def test_a_list_is_not_halved_to_the_end_while_the_target_is_down(
    make_house: MakeHouse, target: Target, engine: Engine, is_async: bool
) -> None:
    calls = []

    def crm(events: Sequence[Event], db: Connection) -> None:
        calls.append(len(events))
        target.call(0)
        for each in events:
            effect(each, db)

    async def async_crm(events: Sequence[Event], db: AsyncConnection) -> None:
        calls.append(len(events))
        target.call(0)
        for each in events:
            await db.execute(_INSERT, {"order_id": each.data["order_id"], "attempt": each.attempt})

    function = async_crm if is_async else crm
    house = make_house(function, breaker=Breaker(after=3), batch=True)
    house.deliver(64)
    assert house.is_open()
    assert house.spent() == calls.count(1) == 3
    assert len(calls) < 20
    house.sweep()
    target.error = None
    house.probe()
    assert not house.is_open()
    house.drain()
    assert effects(engine) == list(range(64))


def test_an_answer_that_it_does_not_open_on_is_an_answer(
    make_house: MakeHouse, target: Target
) -> None:
    house = make_house(breaker=Breaker(on=(ConnectionError, HTTPStatus5xx), after=3))
    house.deliver(2)
    target.error = answer(404)
    house.deliver(1, first=10)
    assert house.breaker.failures == 0
    target.error = answer(503)
    house.deliver(3, first=20)
    assert house.is_open()
    house.sweep()
    target.error = answer(422)
    house.probe()
    assert not house.is_open()


def test_an_endpoint_that_wants_no_further_attempt_has_answered(
    make_house: MakeHouse, target: Target
) -> None:
    house = make_house(breaker=Breaker(after=3))
    house.deliver(2)
    target.error = GoneAway("HTTP 410")
    house.deliver(1, first=10)
    assert house.breaker.failures == 0
    target.error = ConnectionError("refused")
    house.deliver(3, first=20)
    assert house.is_open()
    house.sweep()
    target.error = GoneAway("HTTP 410")
    house.probe()
    assert (house.is_open(), house.breaker.closed_by) == (False, None)
    assert house.states() == {"dead": 2, "retrying": 4}
    target.error = None
    house.run()
    assert house.states() == {"dead": 2, "succeeded": 4}


@pytest.mark.parametrize("error", [ValueError("a bug"), Snooze(60), Discard("not for us")])
def test_another_error_says_nothing(
    make_house: MakeHouse, target: Target, error: Exception
) -> None:
    house = make_house(breaker=Breaker(after=3))
    house.deliver(2)
    target.error = error
    house.deliver(5, first=10)
    assert (house.is_open(), house.breaker.failures) == (False, 2)
    target.error = ConnectionError("refused")
    house.deliver(5, first=20)
    assert house.is_open()
    house.sweep()
    target.error = error
    first = house.probe()
    assert house.is_open()
    assert house.sweep() == []
    assert house.probe() != first
    target.error = None
    house.probe()
    assert not house.is_open()


def test_the_processors_own_time_limit_is_a_timeout(make_house: MakeHouse) -> None:
    def crm(event: Event, db: Connection) -> None:
        threading.Event().wait()

    house = make_house(crm, breaker=Breaker(on=TimeoutError, after=2), timeout_s=0.05)
    house.deliver(4)
    assert house.is_open()
    assert house.spent() == 2


@pytest.mark.parametrize("how", ["RetryAfter", "header", "date"])
def test_no_probe_is_made_before_the_target_asked_for_it(
    make_house: MakeHouse, target: Target, how: str
) -> None:
    house = make_house(breaker=Breaker(on=(HTTPStatus5xx, RetryAfter), after=2, probe_every_s=5))
    at = (datetime.now(UTC) + timedelta(hours=1)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    target.error = {
        "RetryAfter": RetryAfter("busy", 3600),
        "header": answer(503, {"retry-after": "3600"}),
        "date": answer(503, {"retry-after": at}),
    }[how]
    house.deliver(3)
    soonest = "SELECT min(next_attempt_at) - now() FROM jobs WHERE failures > 0"
    assert one(house.engine, soonest) > timedelta(minutes=59)
    opened, due = house.breaker.opened_at, house.breaker.probe_at
    assert opened
    assert due
    assert due - opened > timedelta(minutes=59)
    house.sweep()
    house.probe()
    again = house.breaker.probe_at
    assert again
    assert again - datetime.now(UTC) > timedelta(minutes=59)
    assert house.sweep() == []


def test_a_probe_whose_worker_is_killed_is_not_waited_for(
    make_house: MakeHouse, engine: Engine, target: Target
) -> None:
    house = make_house(breaker=Breaker(after=2), retry_base_s=3600, retry_max_delay_s=3600)
    house.deliver(5)
    house.sweep()
    (lost,) = house.sweep(probe=True)
    execute(engine, "UPDATE breakers SET probe_at = now()")
    claim(engine, [lost], worker="killed")
    assert house.sweep(probe=True) == []  # it runs
    execute(engine, "UPDATE jobs SET lease_until = now() WHERE lease_until IS NOT NULL")
    rescue.recover_expired(
        engine, RetryPolicy(base_s=60, cap_s=60), limit=10, random=random.uniform
    )
    (another,) = house.sweep(probe=True)
    assert another != lost
    target.error = None
    house.run([another])
    assert not house.is_open()


def test_a_probe_that_waits_for_a_busy_worker_is_not_replaced(
    make_house: MakeHouse, target: Target
) -> None:
    house = make_house(breaker=Breaker(after=2, probe_every_s=1))
    house.deliver(5)
    house.sweep()
    (probe,) = house.sweep(probe=True)
    assert house.sweep(probe=True) == [probe]  # its message was lost; it is not another job
    target.error = None
    house.run([probe])
    assert not house.is_open()


def test_several_relays_make_one_probe(make_house: MakeHouse) -> None:
    house = make_house(breaker=Breaker(after=2, probe_every_s=600))
    house.deliver(40)
    house.sweep()
    relays = [house.make_relay() for _ in range(6)]
    execute(house.engine, "UPDATE breakers SET probe_at = now()")
    together = threading.Barrier(len(relays), timeout=300)

    def sweep(number: int) -> None:
        together.wait()
        relays[number][1].sweep()

    with ThreadPoolExecutor(len(relays)) as pool:
        list(pool.map(sweep, range(len(relays))))
    dispatched = [job for sent, _ in relays for _, _, ids in sent.messages for job in ids]
    assert len(dispatched) == 1
    assert house.breaker.probes == 1


def test_without_a_job_that_is_due_the_first_that_comes_is_the_probe(
    make_house: MakeHouse, target: Target
) -> None:
    house = make_house(breaker=Breaker(after=2), max_attempts=1)
    house.deliver(2)
    assert house.states() == {"dead": 2}
    assert house.sweep(probe=True) == []
    assert house.is_open()
    target.error = None
    house.deliver(1, first=10)
    assert len(target.calls) == 2
    house.sweep()
    house.probe()
    assert (house.is_open(), house.states()) == (False, {"dead": 2, "succeeded": 1})


def test_a_pause_wins_over_an_open_breaker(make_house: MakeHouse, target: Target) -> None:
    house = make_house(breaker=Breaker(after=2))
    house.deliver(5)
    house.sweep()
    house.pause()
    target.error = None
    assert house.probe() == house.probe() == []
    assert {group.reason for group in house.parked()} == {"paused"}
    house.resume()
    assert {group.reason for group in house.parked()} == {"breaker_open"}
    assert len(house.probe()) == 1
    assert not house.is_open()


def test_a_probe_that_is_paused_over_does_not_run(make_house: MakeHouse, target: Target) -> None:
    house = make_house(breaker=Breaker(after=2))
    house.deliver(5)
    house.sweep()
    (probe,) = house.sweep(probe=True)
    house.pause()
    house.run([probe])
    assert len(target.calls) == 2
    house.resume()
    target.error = None
    house.drain()
    assert not house.is_open()


def test_a_release_without_the_breaker_closes_it(
    make_house: MakeHouse, make_worker: MakeWorker, engine: Engine, target: Target
) -> None:
    house = make_house(breaker=Breaker(after=2))
    house.deliver(5)
    house.sweep()
    target.error = None
    registry.declared[-1] = replace(registry.declared[-1], breaker=None)
    house.worker = make_worker(name="test:2")
    house.register()
    assert one(engine, "SELECT count(*) FROM breakers") == 0
    house.drain()
    assert effects(engine) == list(range(5))


def test_the_breaker_of_one_release_lives_beside_another_without_it(
    make_house: MakeHouse, engine: Engine
) -> None:
    house = make_house(breaker=Breaker(after=2))
    execute(engine, "DELETE FROM breakers")  # as the other release's worker does when it starts
    house.deliver(5)
    assert house.is_open()
    assert house.spent() == 2


def test_a_worker_that_starts_leaves_an_open_breaker_open(make_house: MakeHouse) -> None:
    house = make_house(breaker=Breaker(after=2))
    house.deliver(5)
    house.register()
    assert (house.is_open(), house.breaker.failures) == (True, 2)


def test_with_an_order_the_first_of_a_key_is_the_probe(
    make_house: MakeHouse, target: Target, engine: Engine
) -> None:
    def crm(event: Event, db: Connection) -> None:
        target.call(event.data["order_id"])
        effect(event, db)

    house = make_house(
        crm, breaker=Breaker(after=3), ordered_by=lambda event: event.data["order_id"] % 2
    )
    house.deliver(12)
    for _ in range(6):
        house.run()
    assert house.is_open()
    assert house.spent() == 3
    assert set(target.calls) <= {0, 1}
    house.sweep()
    for _ in range(3):
        house.probe()
    assert house.spent() == 6
    assert set(target.calls) <= {0, 1}
    target.error = None
    house.probe()
    assert not house.is_open()
    house.drain()
    ran = [row["order_id"] for row in rows(engine, "SELECT order_id FROM effects ORDER BY ctid")]
    assert [n for n in ran if n % 2] == [1, 3, 5, 7, 9, 11]
    assert [n for n in ran if not n % 2] == [0, 2, 4, 6, 8, 10]


def test_with_an_order_an_event_whose_key_is_not_read_is_probed_before_what_waits_for_it(
    make_house: MakeHouse, target: Target, engine: Engine
) -> None:
    """Its worker died, so it has had an attempt. Nothing else reads its key while it is parked."""

    def crm(event: Event, db: Connection) -> None:
        target.call(event.data["order_id"])

    house = make_house(
        crm, breaker=Breaker(after=3), ordered_by=lambda event: event.data["order_id"]
    )
    house.deliver(6)
    house.run()
    assert house.is_open()
    house.sweep()
    unread = one(engine, "SELECT min(id) FROM jobs WHERE failures = 0")
    execute(engine, "UPDATE jobs SET attempt = attempt + 1 WHERE id = :id", id=unread)
    execute(engine, "UPDATE ordered_jobs SET placed = false")
    execute(engine, "UPDATE ordered_jobs SET key = NULL WHERE job = :id", id=unread)
    target.error = None
    assert house.probe() == [unread]
    assert not house.is_open()
    house.drain()


def test_what_ran_apart_and_what_is_replayed_is_probed_likewise(
    make_house: MakeHouse, target: Target, engine: Engine
) -> None:
    house = make_house(breaker=Breaker(after=2), max_attempts=1)
    house.deliver(2)
    execute(
        engine,
        "UPDATE jobs SET state = 'pending', trigger = 'rescue', next_attempt_at = now(),"
        " finished_at = NULL",
    )
    house.sweep()
    house.probe()
    assert house.states() == {"dead": 1, "pending": 1}
    execute(
        engine,
        "UPDATE jobs SET state = 'pending', trigger = 'replay', queue = 'replay',"
        " next_attempt_at = now(), finished_at = NULL",
    )
    house.sweep()
    target.error = None
    house.probe()
    assert not house.is_open()
    house.drain()


def test_an_operator_closes_it_and_all_jobs_run(
    make_house: MakeHouse, target: Target, engine: Engine
) -> None:
    house = make_house(breaker=Breaker(after=2))
    house.deliver(5)
    house.sweep()
    target.error = None
    with engine.begin() as connection:
        assert breakers.close(connection, NAME, by="sara")
        assert not breakers.close(connection, NAME, by="omar")
    assert house.breaker.closed_by == "sara"
    house.drain()
    assert house.spent() == 2


def test_an_operator_has_it_probe_now(
    make_house: MakeHouse, target: Target, engine: Engine
) -> None:
    house = make_house(breaker=Breaker(after=2, probe_every_s=3600))
    house.deliver(5)
    assert house.sweep() == []
    target.error = None
    with engine.begin() as connection:
        assert breakers.probe_now(connection, NAME)
    (probe,) = house.sweep()
    house.run([probe])
    assert not house.is_open()
    with engine.begin() as connection:
        assert not breakers.probe_now(connection, NAME)


def test_the_last_error_is_told_until_it_is_erased(make_house: MakeHouse, engine: Engine) -> None:
    house = make_house(breaker=Breaker(after=2))
    house.deliver(3)
    assert (house.breaker.error_type, house.breaker.error_message) == ("ConnectionError", "refused")
    execute(engine, "UPDATE attempts SET error_message = NULL")
    assert (house.breaker.error_type, house.breaker.error_message) == ("ConnectionError", None)


def test_a_processor_without_effects_has_a_breaker_too(
    make_worker: MakeWorker, engine: Engine, database_url: str, target: Target
) -> None:
    @processor("order.created", name=NAME, breaker=Breaker(after=3), max_attempts=50)
    def crm(event: Event, engine: Any) -> None:
        target.call(event.data["order_id"])

    registry.declared[-1] = replace(registry.declared[-1], is_outside=True)
    house = House(engine, database_url, make_worker())
    house.deliver(20)
    assert len(target.calls) == house.spent() == 3
    target.error = None
    house.sweep()
    house.probe()
    house.drain()
    assert house.states() == {"succeeded": 20}


def test_a_processor_without_a_breaker_runs_no_statement_more(
    make_worker: MakeWorker, engine: Engine, database_url: str, target: Target
) -> None:
    @processor("order.created", name="plain", max_attempts=50)
    def plain(event: Event, db: Connection) -> None:
        target.call(event.data["order_id"])

    worker = make_worker()
    house = House(engine, database_url, worker)
    named: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        others = ("ingest.jobs", "ingest.processors")  # claims, and what the relay runs
        if "ingest.breakers" in statement and not any(table in statement for table in others):
            named.append(statement)

    for one_engine in (engine, worker.effects):
        sqlalchemy_event.listen(one_engine, "before_cursor_execute", note)
    house.deliver(3)
    target.error = None
    house.drain()
    assert named == []


def test_a_batch_of_successes_costs_one_statement(make_house: MakeHouse, target: Target) -> None:
    house = make_house()
    target.error = None
    named: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        named.append(statement)

    sqlalchemy_event.listen(house.worker.effects, "before_cursor_execute", note)
    before = rows(house.engine, "SELECT xmin::text FROM breakers")
    house.deliver(1)
    (told,) = (statement for statement in named if "ingest.breakers" in statement)
    assert told.lstrip().startswith("UPDATE")
    assert rows(house.engine, "SELECT xmin::text FROM breakers") == before


def answer(status: int, headers: dict[str, str] | None = None) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "http://crm")
    response = httpx.Response(status, headers=headers or {}, request=request)
    return httpx.HTTPStatusError(f"HTTP {status}", request=request, response=response)


def claim(engine: Engine, ids: Sequence[int], *, worker: str) -> None:
    with engine.begin() as connection:
        assert jobs.claim(connection, ids, worker=worker, lease_s=60, max_attempts=50)
