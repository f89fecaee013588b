"""Work that nobody holds is found in PostgreSQL, whatever became of its hint."""

import os
import random
import threading
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from ingest import settings
from ingest.errors import DispatchFailed
from ingest.ids import first_id
from ingest.settings import Settings
from ingest.store import partitions
from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from ingest.store.pipeline import admission, jobs
from ingest.store.pipeline.jobs import Lease, NewJobs
from tests.integration.conftest import Sent
from tests.support.deliver import deliver, order
from tests.support.rows import execute, one, rows
from workers.recovery import rescue
from workers.recovery.crash_record import CrashRecorder
from workers.relay.maintenance import DailyMaintenance
from workers.relay.sweep import Relay, Swept
from workers.retry import RetryPolicy

ORDERS = NewJobs(type="order.created", processor="orders", queue="events", max_attempts=2)
RULES = RetryPolicy(base_s=100, cap_s=100)


def options(**more: Any) -> Settings:
    return settings.load(**({"redispatch_after_s": 0.3, "relay_batch": 1000} | more))


def relay(engine: Engine, **more: Any) -> tuple[Relay, Sent]:
    sent = Sent()
    return Relay(engine, sent, options(**more)), sent


def make_jobs(engine: Engine, database_url: str, count: int, queue: str = "events") -> list[int]:
    deliveries = deliver(database_url, [order(n) for n in range(count)])
    with engine.begin() as connection:
        admitted = admission.admit(
            connection,
            deliveries,
            [NewJobs(type="order.created", processor="p", queue=queue, max_attempts=2)],
            replay_queue="replay",
            redispatch_after_s=0,
        )
    return [job.id for job in admitted.jobs]


def claim(engine: Engine, ids: Sequence[int], *, worker: str = "w") -> list[Lease]:
    with engine.begin() as connection:
        claimed = jobs.claim(connection, ids, worker=worker, lease_s=60, max_attempts=2)
    return [Lease(id=job.id, attempt=job.attempt) for job in claimed]


def test_idle_it_does_nothing(engine: Engine) -> None:
    found, sent = relay(engine)
    assert found.sweep() == Swept(rescued=0, deliveries=0, jobs=0)
    assert sent.messages == []


def test_deliveries_that_nobody_admitted_are_hinted_in_few_messages(
    engine: Engine, database_url: str
) -> None:
    deliveries = deliver(database_url, [order(n) for n in range(450)])
    found, sent = relay(engine)
    assert found.sweep().deliveries == 450
    assert [queue for queue, _, _ in sent.messages] == ["events.overdue"] * 3
    hinted = [each for _, ids, _ in sent.messages for each in ids]
    assert sorted(hinted) == sorted(deliveries)


def test_a_lock_on_what_is_parked_keeps_nothing_from_being_dispatched(
    engine: Engine, database_url: str
) -> None:
    deliver(database_url, [order(1)])
    of_a_relay = create_engine(parse(database_url), role=Role.RELAY)
    with engine.begin() as connection:
        connection.execute(text("LOCK TABLE ingest.parked IN ACCESS EXCLUSIVE MODE"))
        found, sent = relay(of_a_relay)
        assert found.sweep().deliveries == 1
    of_a_relay.dispose()
    assert len(sent.messages) == 1


def test_a_fresh_delivery_is_left_to_the_hint_that_its_receiver_sent(
    engine: Engine, database_url: str
) -> None:
    deliver(database_url, [order(1)], dispatch_grace_s=60)
    found, sent = relay(engine)
    assert found.sweep().deliveries == 0
    assert sent.messages == []


def test_the_same_work_is_hinted_again_only_after_a_while(
    engine: Engine, database_url: str
) -> None:
    deliver(database_url, [order(1)])
    make_jobs(engine, database_url, 1)
    found, sent = relay(engine, redispatch_after_s=600)
    found.sweep()
    found.sweep()
    assert len(sent.messages) == 2
    execute(engine, "UPDATE unadmitted SET hint_at = now()")
    execute(engine, "UPDATE jobs SET hinted_until = now()")
    found.sweep()
    assert len(sent.messages) == 4


def test_a_retry_is_hinted_when_it_is_due_and_not_before(engine: Engine, database_url: str) -> None:
    (job,) = make_jobs(engine, database_url, 1)
    execute(
        engine,
        "UPDATE jobs SET next_attempt_at = now() + interval '1 h', hinted_until = NULL",
    )
    found, sent = relay(engine)
    assert found.sweep().jobs == 0
    execute(engine, "UPDATE jobs SET next_attempt_at = now()")
    assert found.sweep().jobs == 1
    assert sent.messages == [("events.overdue", [], [job])]


def test_each_queue_gets_its_own_jobs(engine: Engine, database_url: str) -> None:
    make_jobs(engine, database_url, 2, "events")
    execute(engine, "UPDATE jobs SET queue = 'crm' WHERE id = (SELECT min(id) FROM jobs)")
    found, sent = relay(engine)
    found.sweep()
    assert sorted(queue for queue, _, _ in sent.messages) == ["crm.overdue", "events.overdue"]


def test_a_queue_that_workers_cannot_keep_up_with_gets_no_more(
    engine: Engine, database_url: str
) -> None:
    make_jobs(engine, database_url, 2)
    execute(engine, "UPDATE jobs SET queue = 'crm' WHERE id = (SELECT min(id) FROM jobs)")
    found, sent = relay(engine, relay_queue_limit=10)
    sent.backlog = lambda queue: 10 if queue == "crm.overdue" else 9  # type: ignore[method-assign]
    assert found.sweep().jobs == 1
    assert [queue for queue, _, _ in sent.messages] == ["events.overdue"]


def test_hints_that_could_not_be_sent_are_sent_by_the_next_sweep(
    engine: Engine, database_url: str
) -> None:
    deliver(database_url, [order(n) for n in range(3)])
    found, sent = relay(engine, redispatch_after_s=1000)
    refusing = sent.dispatch

    def refuse(*_: Any, **__: Any) -> None:
        raise DispatchFailed("no", reason="dispatch_failed")

    sent.dispatch = refuse  # type: ignore[method-assign]
    with pytest.raises(DispatchFailed):
        found.sweep()
    sent.dispatch = refusing  # type: ignore[method-assign]
    assert found.sweep().deliveries == 3


def test_several_relays_hint_nothing_twice(engine: Engine, database_url: str) -> None:
    deliver(database_url, [order(n) for n in range(500)])
    make_jobs(engine, database_url, 100)
    relays = [relay(engine, redispatch_after_s=1000, relay_batch=40) for _ in range(5)]

    def sweep(each: Relay) -> None:
        while each.sweep() != Swept(rescued=0, deliveries=0, jobs=0):
            pass

    threads = [threading.Thread(target=sweep, args=(each,)) for each, _ in relays]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    hinted: list[UUID | int] = []
    for _, sent in relays:
        for _, deliveries, job_ids in sent.messages:
            hinted += [*deliveries, *job_ids]
    assert len(hinted) == len(set(hinted)) == 600


def lose_leases(engine: Engine) -> int:
    execute(
        engine,
        "UPDATE jobs SET lease_until = now() - interval '1 s' WHERE lease_until IS NOT NULL",
    )
    return rescue.recover_expired(engine, RULES, limit=100, random=random.uniform)


def test_a_lease_that_ended_is_taken_back_without_spending_an_attempt_the_first_time(
    engine: Engine, database_url: str
) -> None:
    claim(engine, make_jobs(engine, database_url, 3))
    assert lose_leases(engine) == 3
    found = rows(engine, "SELECT DISTINCT state, trigger, failures, attempt FROM jobs")
    assert found == [{"state": "retrying", "trigger": "rescue", "failures": 0, "attempt": 1}]
    assert {row["outcome"] for row in rows(engine, "SELECT outcome FROM attempts")} == {"released"}


def test_a_job_that_ran_apart_and_lost_its_lease_spends_an_attempt_each_time(
    engine: Engine, database_url: str
) -> None:
    ids = make_jobs(engine, database_url, 1)
    for _ in range(3):
        execute(engine, "UPDATE jobs SET next_attempt_at = now()")
        claim(engine, ids)
        lose_leases(engine)
    found = rows(engine, "SELECT state, failures, attempt FROM jobs")
    assert found == [{"state": "dead", "failures": 2, "attempt": 3}]
    kept = rows(engine, "SELECT outcome FROM attempts ORDER BY number")
    assert [row["outcome"] for row in kept] == ["released", "lost", "lost"]


def test_a_lease_that_still_holds_is_left_alone(engine: Engine, database_url: str) -> None:
    claim(engine, make_jobs(engine, database_url, 1))
    assert rescue.recover_expired(engine, RULES, limit=100, random=random.uniform) == 0


def test_two_rescuers_take_back_each_job_once(engine: Engine, database_url: str) -> None:
    claim(engine, make_jobs(engine, database_url, 50))
    execute(engine, "UPDATE jobs SET lease_until = now() - interval '1 s'")
    counts: list[int] = []

    def take_back() -> None:
        counts.append(rescue.recover_expired(engine, RULES, limit=100, random=random.uniform))

    threads = [threading.Thread(target=take_back) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 50
    assert one(engine, "SELECT count(*) FROM attempts") == 50


def test_a_dead_process_leaves_exactly_one_guilty_job(
    engine: Engine, database_url: str, tmp_path: Any
) -> None:
    held = claim(engine, make_jobs(engine, database_url, 5), worker="host:1:abc")
    others = claim(engine, make_jobs(engine, database_url, 1), worker="host:2:def")
    assert not others  # the same orders are duplicates, so there is nothing to claim
    pid = os.fork()
    if pid == 0:
        CrashRecorder(tmp_path, "host:1:abc").mark_running(held[2])
        os._exit(1)
    os.waitpid(pid, 0)
    assert rescue.recover_crashed(engine, tmp_path, RULES, random=random.uniform) == 5
    found = rows(engine, "SELECT id, failures, state FROM jobs ORDER BY id")
    assert [row["failures"] for row in found] == [0, 0, 1, 0, 0]
    assert {row["state"] for row in found} == {"retrying"}
    assert one(engine, "SELECT job FROM attempts WHERE outcome = 'lost'") == held[2].id
    assert rescue.recover_crashed(engine, tmp_path, RULES, random=random.uniform) == 0


def test_a_dead_processs_jobs_that_went_on_elsewhere_are_left_alone(
    engine: Engine, database_url: str, tmp_path: Any
) -> None:
    ids = make_jobs(engine, database_url, 2)
    (first, second) = claim(engine, ids, worker="host:1:abc")
    with engine.begin() as connection:
        jobs.finish(connection, [first])
    lose_leases(engine)
    claim(engine, ids, worker="host:9:xyz")
    pid = os.fork()
    if pid == 0:
        CrashRecorder(tmp_path, "host:1:abc").mark_running(second)
        os._exit(1)
    os.waitpid(pid, 0)
    assert rescue.recover_crashed(engine, tmp_path, RULES, random=random.uniform) == 0
    found = rows(engine, "SELECT state FROM jobs ORDER BY id")
    assert [row["state"] for row in found] == ["succeeded", "running"]


def test_partitions_are_made_ahead(engine: Engine) -> None:
    with engine.connect() as connection:
        first, *_ = partitions.days(connection)
    DailyMaintenance(engine, options(partition_days_ahead=5)).run(first)
    with engine.connect() as connection:
        assert len(partitions.days(connection)) == 6


def test_days_that_nobody_keeps_are_dropped_unless_work_is_left(
    engine: Engine, database_url: str
) -> None:
    today = datetime.now(UTC).date()
    old, older = today - timedelta(days=8), today - timedelta(days=9)
    with engine.begin() as connection:
        partitions.ensure(connection, today=older, days_ahead=10)
    make_jobs(engine, database_url, 1)
    noon = datetime(old.year, old.month, old.day, 12, tzinfo=UTC)
    execute(engine, "UPDATE jobs SET event = :event", event=first_id(noon))
    DailyMaintenance(engine, options()).run(today)
    keeping_all = one(engine, "SELECT count(*) FROM pg_inherits")
    DailyMaintenance(engine, options(body_retention_days=7)).run(today)
    with engine.connect() as connection:
        days = partitions.days(connection)
    assert older not in days
    assert old in days
    assert today - timedelta(days=7) in days
    assert one(engine, "SELECT count(*) FROM pg_inherits") < keeping_all


def sweep_away_strays(engine: Engine, today: date, **settings: Any) -> None:
    """Let a relay's upkeep run as often as it needs."""
    upkeep = DailyMaintenance(engine, options(**settings))
    for _ in range(10):
        upkeep.run_if_due(today, now=0)


def test_bodies_of_days_that_never_had_a_partition_are_dropped_too_unless_work_is_left(
    engine: Engine, database_url: str
) -> None:
    """No relay ran for weeks, so they came into the default partition."""
    today = datetime.now(UTC).date()
    make_jobs(engine, database_url, 1)
    unfinished, old, kept = (
        first_id(datetime(day.year, day.month, day.day, 12, tzinfo=UTC))
        for day in (today - timedelta(days=age) for age in (40, 30, 3))
    )
    for number in range(3):
        for id_ in (unfinished, old, kept):
            execute(
                engine,
                "INSERT INTO deliveries (id, source, received_at, key_id, headers, body)"
                " VALUES (:id, 'awalchat', now(), 'k', '[]', '{}')",
                id=UUID(int=id_.int + number),
            )
    execute(engine, "UPDATE jobs SET event = :event", event=unfinished)
    sweep_away_strays(engine, today)
    assert one(engine, "SELECT count(*) FROM deliveries_default") == 9
    sweep_away_strays(engine, today, body_retention_days=7)
    left = rows(engine, "SELECT id FROM deliveries_default ORDER BY id")
    assert [row["id"].int >> 80 for row in left] == [
        id_.int >> 80 for id_ in (unfinished, kept) for _ in range(3)
    ]


def test_days_that_nobody_keeps_are_dropped_however_many_strays_they_have(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "STRAYS_AT_ONCE", 2)
    today = datetime.now(UTC).date()
    first = first_id(datetime.now(UTC) - timedelta(days=30))
    for number in range(5):
        execute(
            engine,
            "INSERT INTO deliveries (id, source, received_at, key_id, headers, body)"
            " VALUES (:id, 'awalchat', now(), 'k', '[]', '{}')",
            id=UUID(int=first.int + number),
        )
    sweep_away_strays(engine, today, body_retention_days=7)
    assert one(engine, "SELECT count(*) FROM deliveries") == 0


def test_a_long_reader_delays_the_upkeep_and_nothing_else(
    engine: Engine, database_url: str
) -> None:
    """A dump at midnight must not keep the sweeps waiting, nor the receivers behind our lock."""
    today = datetime.now(UTC).date()
    found, sent = relay(engine)
    upkeep = DailyMaintenance(engine, options(partition_days_ahead=9))
    make_jobs(engine, database_url, 1)
    with engine.begin() as reader:
        reader.execute(text("SELECT FROM deliveries"))
        began = time.monotonic()
        upkeep.run_if_due(today, now=0)
        assert time.monotonic() - began < 15  # 0.1 s for each attempt
        upkeep.run_if_due(today, now=59)
        assert found.sweep().jobs == 1
    assert [queue for queue, _, _ in sent.messages] == ["events.overdue"]
    with engine.connect() as connection:
        before = len(partitions.days(connection))
        upkeep.run_if_due(today, now=61)
        assert len(partitions.days(connection)) > before
