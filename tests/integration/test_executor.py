"""Effects and success share a transaction; a failure harms no neighbour and is never silent."""

import dataclasses
import faulthandler
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from ingest.store.pipeline import admission, jobs
from ingest.store.pipeline.admission import Admitted
from ingest.store.pipeline.jobs import Lease
from tests.integration.conftest import NoLeases, Worker
from tests.integration.outcomes import effect, effects, job_states, make_tables, run_due
from tests.support.deliver import deliver, order
from tests.support.refuse import refuse_connections
from tests.support.rows import execute, one, rows
from tests.support.waiting import until
from workers import Discard, Event, Snooze, processor
from workers.recovery import rescue
from workers.retry import RetryPolicy

MakeWorker = Callable[..., Worker]


@pytest.fixture(autouse=True)
def _tables(engine: Engine) -> None:
    make_tables(engine)


def test_an_event_reaches_its_processor_with_everything_it_needs(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    seen: list[Event] = []

    @processor("order.created", name="p")
    def look(event: Event, db: Connection) -> None:
        seen.append(event)

    raw = (
        b'{"event":"order.created","timestamp":"2024-01-20T11:00:00Z",'
        b'"data":{"order_id":1,"total":1250.00}}'
    )
    (delivery,) = deliver(database_url, [raw])
    make_worker().process([delivery])
    (event,) = seen
    assert event.id == str(delivery)
    assert (event.source, event.event_id, event.type) == (
        "awalchat",
        "order.created:1",
        "order.created",
    )
    assert event.body == raw
    assert str(event.data["total"]) == "1250.00"
    assert event.occurred_at is not None
    assert event.occurred_at.isoformat() == "2024-01-20T11:00:00+00:00"
    assert event.attempt == 1
    assert event.idempotency_key == f"{delivery}:p"


def test_effects_commit_with_success(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created")
    def work(event: Event, db: Connection) -> None:
        effect(event, db)

    make_worker().process(deliver(database_url, [order(n) for n in range(5)]))
    assert effects(engine) == [0, 1, 2, 3, 4]
    assert set(job_states(engine).values()) == {"succeeded"}
    assert rows(engine, "SELECT * FROM attempts") == []


def test_effects_roll_back_with_failure_and_the_neighbours_keep_theirs(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", max_attempts=3)
    def work(event: Event, db: Connection) -> None:
        effect(event, db)
        if event.data["order_id"] == 2:
            raise ValueError("no")

    make_worker().process(deliver(database_url, [order(n) for n in range(5)]))
    assert effects(engine) == [0, 1, 3, 4]
    assert job_states(engine) == {
        0: "succeeded",
        1: "succeeded",
        2: "retrying",
        3: "succeeded",
        4: "succeeded",
    }
    (attempt,) = rows(engine, "SELECT * FROM attempts")
    assert (attempt["number"], attempt["outcome"], attempt["error_type"]) == (
        1,
        "failed",
        "ValueError",
    )
    assert attempt["error_message"] == "no"
    assert attempt["traceback"].splitlines()[0].endswith("in work")
    assert attempt["worker"] == "test:1"


def test_a_processor_that_fails_twice_then_works_takes_effect_once(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", max_attempts=5)
    def work(event: Event, db: Connection) -> None:
        effect(event, db)
        if event.attempt < 3:
            raise ValueError("not yet")

    worker = make_worker()
    worker.process(deliver(database_url, [order(1)]))
    for _ in range(2):
        time.sleep(0.005)
        run_due(engine, worker)
    assert job_states(engine) == {1: "succeeded"}
    assert rows(engine, "SELECT * FROM effects") == [{"order_id": 1, "attempt": 3}]
    assert [row["number"] for row in rows(engine, "SELECT * FROM attempts ORDER BY number")] == [
        1,
        2,
    ]


def test_one_that_always_fails_is_dead_after_its_attempts(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    calls = 0

    @processor("order.created", max_attempts=3)
    def work(event: Event, db: Connection) -> None:
        nonlocal calls
        calls += 1
        raise ValueError("never")

    worker = make_worker()
    worker.process(deliver(database_url, [order(1)]))
    for _ in range(5):
        time.sleep(0.005)
        run_due(engine, worker)
    assert job_states(engine) == {1: "dead"}
    assert calls == 3
    kept = rows(engine, "SELECT number, trigger, outcome FROM attempts ORDER BY number")
    assert [row["number"] for row in kept] == [1, 2, 3]
    assert [row["trigger"] for row in kept] == ["delivery", "retry", "retry"]


def test_a_retry_is_not_run_before_its_time(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", retry_base_s=1000, retry_max_delay_s=1000)
    def work(event: Event, db: Connection) -> None:
        raise ValueError("no")

    worker = make_worker()
    worker.process(deliver(database_url, [order(1)]))
    run_due(engine, worker)
    assert one(engine, "SELECT attempt FROM jobs") == 1


def test_discard_is_dead_at_once(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created")
    def work(event: Event, db: Connection) -> None:
        effect(event, db)
        raise Discard("order_id is missing")

    make_worker().process(deliver(database_url, [order(1)]))
    assert job_states(engine) == {1: "dead"}
    assert effects(engine) == []
    (attempt,) = rows(engine, "SELECT * FROM attempts")
    assert (attempt["outcome"], attempt["error_message"]) == ("discarded", "order_id is missing")


def test_snooze_spends_no_attempt(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", max_attempts=1)
    def work(event: Event, db: Connection) -> None:
        if event.attempt < 4:
            raise Snooze(0)
        effect(event, db)

    worker = make_worker()
    worker.process(deliver(database_url, [order(1)]))
    for _ in range(3):
        run_due(engine, worker)
    assert job_states(engine) == {1: "succeeded"}
    assert one(engine, "SELECT failures FROM jobs") == 0
    assert [row["outcome"] for row in rows(engine, "SELECT outcome FROM attempts")] == [
        "snoozed"
    ] * 3


def test_when_the_work_is_done_nothing_watches_the_process(
    engine: Engine,
    database_url: str,
    make_worker: MakeWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The watchdog of the last call once ended workers that had nothing to do."""
    watchdog: list[str] = []
    monkeypatch.setattr(
        faulthandler, "dump_traceback_later", lambda *_, **__: watchdog.append("set")
    )
    monkeypatch.setattr(
        faulthandler, "cancel_dump_traceback_later", lambda: watchdog.append("cancelled")
    )

    @processor("order.created")
    def work(event: Event, db: Connection) -> None:
        if event.data["order_id"] == 2:
            raise ValueError

    make_worker().process(deliver(database_url, [order(1), order(2)]))
    assert "set" in watchdog
    assert watchdog[-1] == "cancelled"


def test_a_call_that_takes_too_long_fails_alone(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", timeout_s=5)
    def work(event: Event, db: Connection) -> None:
        effect(event, db)
        while event.data["order_id"] == 1:
            pass

    make_worker().process(deliver(database_url, [order(n) for n in range(3)]))
    assert effects(engine) == [0, 2]
    assert job_states(engine) == {0: "succeeded", 1: "retrying", 2: "succeeded"}
    assert [row["outcome"] for row in rows(engine, "SELECT outcome FROM attempts")] == ["timed_out"]


def test_a_query_that_takes_too_long_fails_alone_although_it_breaks_the_connection(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", timeout_s=5)
    def work(event: Event, db: Connection) -> None:
        effect(event, db)
        if event.data["order_id"] == 1:
            db.execute(text("SELECT pg_sleep(60)"))

    make_worker().process(deliver(database_url, [order(n) for n in range(3)]))
    assert effects(engine) == [0, 2]
    assert job_states(engine) == {0: "succeeded", 1: "retrying", 2: "succeeded"}


def test_a_list_that_is_halved_is_called_with_events_as_they_came(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    seen = []

    @processor("order.created", batch=True, max_attempts=1)
    def work(events: list[Event], db: Connection) -> None:
        seen.append([event.data.pop("order_id") for event in events])
        if 2 in seen[-1]:
            raise ValueError

    make_worker().process(deliver(database_url, [order(n) for n in range(4)]))
    assert seen == [[0, 1, 2, 3], [0, 1], [2, 3], [2], [3]]


def test_under_a_stricter_isolation_a_renewed_lease_is_no_conflict(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    name = one(engine, "SELECT current_database()")
    execute(engine, f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")

    @processor("order.created", max_attempts=1)
    def work(event: Event, db: Connection) -> None:
        effect(event, db)
        time.sleep(0.8)

    engine.dispose()
    make_worker(lease_s=0.6).process(deliver(database_url, [order(1)]))
    assert job_states(engine) == {1: "succeeded"}


def test_a_list_that_fails_is_halved_until_the_guilty_are_found(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    sizes: list[int] = []

    @processor("order.created", batch=True)
    def work(events: list[Event], db: Connection) -> None:
        sizes.append(len(events))
        for event in events:
            effect(event, db)
            if event.data["order_id"] in (3, 17):
                raise Discard("no")

    make_worker().process(deliver(database_url, [order(n) for n in range(20)]))
    states = job_states(engine)
    assert {n for n, state in states.items() if state == "dead"} == {3, 17}
    assert effects(engine) == [n for n in range(20) if n not in (3, 17)]
    assert sizes[0] == 20
    assert len(sizes) < 20


def test_a_body_that_was_dropped_makes_its_job_dead_with_a_sentence(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created")
    def work(event: Event, db: Connection) -> None: ...

    deliveries = deliver(database_url, [order(1), order(2)])
    execute(engine, "DELETE FROM deliveries WHERE id = :id", id=deliveries[0])
    make_worker().process(deliveries)
    assert job_states(engine) == {1: "dead", 2: "succeeded"}
    assert "deleted when its retention ended" in one(engine, "SELECT error_message FROM attempts")


def test_the_effects_of_a_worker_that_stalled_past_its_lease_roll_back(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    """Two workers, one job: the first stalls, the second takes over, the first wakes up."""
    stalled, go_on = threading.Event(), threading.Event()

    @processor("order.created", name="p")
    def work(event: Event, db: Connection) -> None:
        effect(event, db)
        if event.attempt == 1:
            stalled.set()
            go_on.wait(300)

    deliveries = deliver(database_url, [order(1), order(2)])
    first, second = make_worker(leases=NoLeases()), None
    thread = threading.Thread(target=first.process, args=(deliveries,))
    thread.start()
    assert stalled.wait(300)
    execute(engine, "UPDATE jobs SET lease_until = now() - interval '1 s'")
    from random import uniform

    assert (
        rescue.recover_expired(
            engine, RetryPolicy(base_s=0.001, cap_s=0.001), limit=10, random=uniform
        )
        == 2
    )
    second = make_worker()
    run_due(engine, second)
    assert job_states(engine) == {1: "succeeded", 2: "succeeded"}
    go_on.set()
    thread.join()
    assert rows(engine, "SELECT * FROM effects ORDER BY order_id") == [
        {"order_id": 1, "attempt": 2},
        {"order_id": 2, "attempt": 2},
    ]


def test_finishing_is_fenced_by_the_attempt_number(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created")
    def work(event: Event, db: Connection) -> None: ...

    worker = make_worker()
    deliveries = deliver(database_url, [order(1)])
    with engine.begin() as connection:
        from ingest.store.pipeline import admission

        admitted = admission.admit(
            connection,
            deliveries,
            worker.registry.new_jobs(),
            replay_queue="replay",
            redispatch_after_s=10,
        )
    (job,) = admitted.jobs
    with engine.begin() as connection:
        (claimed,) = jobs.claim(connection, [job.id], worker="a", lease_s=60, max_attempts=3)
    for stale in (Lease(id=job.id, attempt=claimed.attempt - 1), Lease(id=job.id, attempt=2)):
        with pytest.raises(Exception, match="taken over"), engine.begin() as connection:
            jobs.finish(connection, [stale])
    with engine.begin() as connection:
        jobs.finish(connection, [Lease(id=job.id, attempt=claimed.attempt)])
    assert job_states(engine) == {1: "succeeded"}


def test_many_workers_claiming_the_same_jobs_run_each_once(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created")
    def work(event: Event, db: Connection) -> None:
        effect(event, db)

    deliveries = deliver(database_url, [order(n) for n in range(60)])
    workers = [make_worker() for _ in range(8)]
    threads = [threading.Thread(target=worker.process, args=(deliveries,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run_due(engine, workers[0])
    assert effects(engine) == list(range(60))
    assert rows(engine, "SELECT * FROM attempts") == []


def test_a_lease_is_renewed_while_its_processor_works(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", timeout_s=300)
    def work(event: Event, db: Connection) -> None:
        before = one(engine, "SELECT lease_until FROM jobs")
        until(lambda: one(engine, "SELECT lease_until FROM jobs") > before, what="renewed")

    make_worker(lease_s=0.6).process(deliver(database_url, [order(1)]))
    assert job_states(engine) == {1: "succeeded"}


def test_what_takes_too_long_is_handed_back_and_does_not_wait_behind_what_comes_now(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created")
    def work(event: Event, db: Connection) -> None:
        time.sleep(0.05)

    worker = make_worker(task_budget_s=0.2)
    worker.process(deliver(database_url, [order(n) for n in range(40)]))
    states = list(job_states(engine).values())
    assert 0 < states.count("succeeded") < 40
    handed_back = [job for _, _, ids in worker.sent.messages for job in ids]
    assert [queue for queue, _, _ in worker.sent.messages] == ["events.continued"] * 2
    soon = "hinted_until < now() + interval '20 s' AND state = 'pending'"
    assert one(engine, f"SELECT count(*) FROM jobs WHERE {soon}") == 0
    assert len(handed_back) == states.count("pending")


def test_a_message_that_used_up_its_time_works_on_each_processors_jobs(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    """Otherwise those of a processor that stands behind a slow one in each message never run."""

    @processor("order.created", name="slow")
    def slow(event: Event, db: Connection) -> None:
        now[0] += 3_600

    @processor("order.created", name="threaded", threads=2)
    @processor("order.created", name="quick")
    def quick(event: Event, db: Connection) -> None:
        pass

    now = [0.0]
    worker = make_worker(clock=lambda: now[0])
    worker.only_place()
    worker.process(deliver(database_url, [order(n) for n in range(12)]))
    execute(engine, "DELETE FROM jobs WHERE state = 'succeeded'")  # claimed as they were made
    ids = [row["id"] for row in rows(engine, "SELECT id FROM jobs ORDER BY id")]
    make_worker(clock=lambda: now[0]).process(jobs=ids)
    names = "SELECT DISTINCT processor FROM jobs WHERE state = 'succeeded' ORDER BY 1"
    assert [row["processor"] for row in rows(engine, names)] == ["quick", "slow", "threaded"]


def test_a_processor_with_a_queue_of_its_own_is_dispatched_there(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", name="slow", queue="crm")
    def slow(event: Event, db: Connection) -> None:
        effect(event, db)

    worker = make_worker()
    worker.process(deliver(database_url, [order(1)]))
    assert job_states(engine) == {1: "pending"}
    ((queue, _, ids),) = worker.sent.messages
    assert queue == "crm"
    worker.process(jobs=ids)
    assert job_states(engine) == {1: "succeeded"}


def test_a_job_of_a_processor_that_nobody_has_waits(
    engine: Engine, database_url: str, make_worker: MakeWorker, declared: list[Any]
) -> None:
    @processor("order.created", name="gone")
    def gone(event: Event, db: Connection) -> None:
        effect(event, db)

    with_it = make_worker()
    declared.clear()
    without_it = make_worker()
    with engine.begin() as connection:
        from ingest.store.pipeline import admission

        admission.admit(
            connection,
            deliver(database_url, [order(1)]),
            with_it.registry.new_jobs(),
            replay_queue="replay",
            redispatch_after_s=0,
        )
    run_due(engine, without_it)
    assert job_states(engine) == {1: "pending"}
    run_due(engine, with_it)
    assert job_states(engine) == {1: "succeeded"}


def lost_connection() -> OperationalError:
    return OperationalError("", None, Exception("server closed the connection unexpectedly"))


def admit_in_turn(
    monkeypatch: pytest.MonkeyPatch, *runs: Callable[[Callable[[], Admitted]], Admitted]
) -> None:
    """The next runs of admit, each around the real one."""
    really, left = admission.admit, iter(runs)

    def admit(*arguments: Any, **options: Any) -> Admitted:
        return next(left)(lambda: really(*arguments, **options))

    monkeypatch.setattr(admission, "admit", admit)


def leaves_some(admit: Callable[[], Admitted]) -> Admitted:
    """As if another worker were inserting one of the events."""
    return dataclasses.replace(admit(), unsettled=1)


def breaks_off(_: Callable[[], Admitted]) -> Admitted:
    raise lost_connection()


def test_what_was_claimed_runs_although_a_second_admit_breaks_off(
    engine: Engine, database_url: str, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    @processor("order.created", name="first")
    def first(event: Event, db: Connection) -> None:
        effect(event, db)

    @processor("order.created", name="second")
    def second(event: Event, db: Connection) -> None:
        effect(event, db)

    admit_in_turn(monkeypatch, leaves_some, breaks_off)
    make_worker().process(deliver(database_url, [order(n) for n in range(5)]))
    assert effects(engine) == sorted([*range(5)] * 2)
    assert one(engine, "SELECT count(*) FROM jobs WHERE state = 'succeeded'") == 10


def test_an_admit_that_breaks_off_before_anything_was_claimed_is_said_so(
    engine: Engine, database_url: str, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    @processor("order.created")
    def work(event: Event, db: Connection) -> None: ...

    admit_in_turn(monkeypatch, breaks_off)
    with pytest.raises(OperationalError):
        make_worker().process(deliver(database_url, [order(1)]))
    assert one(engine, "SELECT count(*) FROM unadmitted") == 1


def test_what_was_claimed_is_kept_leased_while_admit_goes_on(
    engine: Engine, database_url: str, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    @processor("order.created", max_attempts=1)
    def work(event: Event, db: Connection) -> None:
        effect(event, db)

    def takes_its_time(admit: Callable[[], Admitted]) -> Admitted:
        before = one(engine, "SELECT lease_until FROM jobs")
        until(lambda: one(engine, "SELECT lease_until FROM jobs") > before, what="renewed")
        return admit()

    admit_in_turn(monkeypatch, leaves_some, takes_its_time)
    make_worker(lease_s=0.6).process(deliver(database_url, [order(1)]))
    assert job_states(engine) == {1: "succeeded"}


def test_what_was_claimed_for_one_processor_runs_although_that_of_another_could_not_begin(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    ran: list[str] = []

    @processor("order.created", name="first")
    def first(event: Event, db: Connection) -> None:
        ran.append("first")

    @processor("order.created", name="second")
    def second(event: Event, db: Connection) -> None:
        ran.append("second")

    worker = make_worker()
    refuse_connections(worker.effects, 1)
    with pytest.raises(OperationalError, match="too many clients"):
        worker.process(deliver(database_url, [order(n) for n in range(3)]))
    states = rows(
        engine, "SELECT processor, state FROM jobs GROUP BY processor, state ORDER BY processor"
    )
    assert states == [
        {"processor": "first", "state": "running"},
        {"processor": "second", "state": "succeeded"},
    ]
    assert ran == ["second"] * 3
