"""Limits, through real workers and a real relay: how many jobs run at once, start, and whose."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine, text

from ingest.settings import load
from ingest.store.pipeline import jobs, limit_waits, limited_line, limits, processors, pulling
from ingest.store.pipeline.jobs import Failure, Lease, Outcome
from ingest.store.pipeline.limits import Bounds, DeclaredLimits
from ingest.store.pipeline.pulling import Claiming
from ingest.store.reports import heartbeats
from ingest.store.reports.heartbeats import ProcessIdentity
from tests.integration.conftest import Worker
from tests.integration.test_order import register
from tests.integration.test_order_races import Crowd
from tests.support.deliver import body, deliver
from tests.support.rows import execute, one, rows
from tests.support.waiting import until
from workers import Event, processor
from workers.relay.parking import Parking
from workers.relay.sweep import Relay

MakeWorker = Callable[..., Worker]
NAME = "calling"
DECLARED = DeclaredLimits(processor=NAME, limit_by="order_id", bounds=Bounds(concurrency=1_000))


def events(*keys: object) -> list[bytes]:
    """The bodies of an event for each key."""
    return [
        body("order.created", {"order_id": key, "step": number}, event_id=f"{key}-{number}")
        for number, key in enumerate(keys)
    ]


@pytest.fixture(autouse=True)
def _tables(engine: Engine) -> None:
    execute(engine, "CREATE TABLE ran (place serial, key text, at timestamptz)")


def note(event: Event, db: Connection) -> None:
    """Keep that an event was worked on."""
    db.execute(
        text("INSERT INTO ran (key, at) VALUES (:key, clock_timestamp())"),
        {"key": str(event.data["order_id"])},
    )


def ran(engine: Engine) -> list[str]:
    """The keys, in the order in which they were committed."""
    return [row["key"] for row in rows(engine, "SELECT key FROM ran ORDER BY place")]


def states(engine: Engine) -> Counter[str]:
    """How many jobs are in each state."""
    return Counter(row["state"] for row in rows(engine, "SELECT state FROM jobs"))


def leftovers(engine: Engine) -> int:
    """Jobs that are in a line."""
    return int(one(engine, "SELECT count(*) FROM limited_jobs WHERE NOT claimed"))


def waiting(engine: Engine) -> list[int]:
    return [row["id"] for row in rows(engine, "SELECT id FROM jobs WHERE next_attempt_at <= now()")]


def test_no_more_than_the_rate_start_and_the_others_spend_no_attempt(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, rate="3/h")
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    worker = make_worker()
    worker.process(deliver(database_url, events(*range(8))))
    worker.process(jobs=waiting(engine))
    assert states(engine) == {"succeeded": 3, "pending": 5}
    assert one(engine, "SELECT sum(attempt) FROM jobs") == 3
    assert worker.sent.messages == []
    held = "next_attempt_at <= now() AND hinted_until > now() + interval '50 min'"
    assert one(engine, f"SELECT count(*) FROM jobs WHERE {held}") == 5


def test_a_flood_of_one_key_holds_up_no_other(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, rate="4/h", limit_by="order_id")
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    worker = make_worker()
    worker.process(deliver(database_url, events(*["flood"] * 60)))
    assert ran(engine) == ["flood"] * 4
    worker.process(deliver(database_url, events("other", "third")))
    execute(engine, "UPDATE limits SET starts_at = '{}', starts = '{}'")
    worker.process(jobs=waiting(engine)[:1])
    assert Counter(ran(engine)[4:]) == {"flood": 2, "other": 1, "third": 1}


def test_a_key_at_its_own_limit_is_passed_over(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, limit_by="order_id", key_rate="2/h")
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    worker = make_worker()
    worker.process(deliver(database_url, events(*["flood"] * 30, "other", *["third"] * 3)))
    assert Counter(ran(engine)) == {"flood": 2, "other": 1, "third": 2}
    assert leftovers(engine) == 29


def test_events_without_the_field_have_no_limit_of_a_key(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, limit_by="missing", key_rate="1/h")
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    worker = make_worker()
    worker.process(deliver(database_url, events(*range(5))))
    assert states(engine) == {"succeeded": 5}


def test_a_replay_of_many_events_leaves_new_ones_their_share(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, concurrency=100)
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    worker = make_worker()
    worker.process(deliver(database_url, events(*["old"] * 40)))
    execute(engine, "TRUNCATE ran")
    replayed = [row["id"] for row in rows(engine, "SELECT id FROM jobs")]
    with engine.begin() as db:
        jobs.requeue(db, replayed, replay=1, queue="replay", delays_s=[0.0] * 40)
        limits.lock(db, NAME)
        limits.override(db, NAME, {"rate": "6/h"}, by="sara", at=_now(db))
    worker.process(jobs=replayed)
    assert ran(engine) == ["old"] * 6
    worker.process(deliver(database_url, events("new", "new")))
    execute(engine, "UPDATE limits SET starts_at = '{}', starts = '{}'")
    worker.process(jobs=waiting(engine)[:1])
    assert Counter(ran(engine)[6:]) == {"old": 4, "new": 2}


def _now(db: Connection) -> Any:
    return db.execute(text("SELECT now()")).scalar_one()


def test_a_key_that_cannot_be_told_is_a_dead_letter_with_its_error(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, limit_by=lambda event: event.data["absent"])
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    worker = make_worker()
    worker.process(deliver(database_url, events(1)))
    assert states(engine) == {"dead": 1}
    assert one(engine, "SELECT error_type FROM attempts") == "KeyError"


def test_with_an_order_only_the_first_of_a_key_waits_for_a_limit(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, ordered_by="order_id", concurrency=2, rate="100/s")
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    worker = make_worker()
    worker.process(deliver(database_url, events(*["a", "b", "c"] * 4)))
    for _ in range(20):
        if states(engine) == {"succeeded": 12}:
            break
        worker.process(jobs=waiting(engine))
    assert states(engine) == {"succeeded": 12}
    assert leftovers(engine) == 0


def test_a_list_takes_no_more_than_may_start(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    sizes: list[int] = []

    @processor("order.*", name=NAME, batch=True, concurrency=5)
    def work(events: list[Event], db: Connection) -> None:
        sizes.append(len(events))

    worker = make_worker()
    worker.process(deliver(database_url, events(*range(17))))
    assert states(engine) == {"succeeded": 17}
    assert max(sizes) == 5


def test_threads_run_no_more_at_once_than_the_concurrency(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    together = Together()

    @processor("order.*", name=NAME, threads=8, concurrency=3)
    def work(event: Event, db: Connection) -> None:
        with together:
            note(event, db)

    worker = make_worker()
    worker.process(deliver(database_url, events(*range(40))))
    assert states(engine) == {"succeeded": 40}
    assert 1 < together.most <= 3


class Together:
    """How many are at work at once, across threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = self.most = 0

    def __enter__(self) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(0.02)  # long enough for others to come

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._now -= 1


def test_a_retry_waits_for_the_limits_anew(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, rate="2/h", max_attempts=9)
    def work(event: Event, db: Connection) -> None:
        raise ConnectionError

    worker = make_worker()
    worker.process(deliver(database_url, events(1)))
    for _ in range(3):
        execute(engine, "UPDATE jobs SET next_attempt_at = now()")
        worker.process(jobs=waiting(engine))
    assert one(engine, "SELECT attempt FROM jobs") == 2
    assert leftovers(engine) == 1


def test_a_job_that_comes_back_from_a_lost_process_is_claimed_by_itself(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    sizes: list[int] = []

    @processor("order.*", name=NAME, batch=True, concurrency=50)
    def work(events: list[Event], db: Connection) -> None:
        sizes.append(len(events))

    worker = make_worker()
    arrived = deliver(database_url, events(*range(6)))
    _admit_only(engine, worker, arrived)
    execute(
        engine,
        "UPDATE jobs SET trigger = 'rescue' WHERE id = (SELECT min(id) + 2 FROM jobs)",
    )
    worker.process(jobs=waiting(engine))
    assert states(engine) == {"succeeded": 6}
    assert sorted(sizes) == [1, 2, 3]


def _admit_only(engine: Engine, worker: Worker, arrived: list[UUID]) -> None:
    """Admit deliveries, and run nothing."""
    register(engine, worker)
    with engine.begin() as db:
        processors.pause(db, NAME, by="sara", reason=None)
    worker.process(arrived)
    with engine.begin() as db:
        processors.resume(db, NAME)


def test_a_pause_keeps_the_line_and_the_relay_wakes_it_afterwards(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, concurrency=2)
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    worker = make_worker()
    _admit_only(engine, worker, deliver(database_url, events(*range(5))))
    assert leftovers(engine) == 5
    Relay(engine, worker.sent, load()).sweep()
    woken = [ids for queue, _, ids in worker.sent.messages if queue == "events.overdue"]
    assert [len(ids) for ids in woken] == [1, 1]
    worker.process(jobs=woken[0])
    assert states(engine) == {"succeeded": 5}


def test_the_relay_wakes_a_line_whose_first_jobs_were_discarded(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, concurrency=1)
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    worker = make_worker()
    _admit_only(engine, worker, deliver(database_url, events(*range(700))))
    with engine.begin() as db:
        jobs.discard(db, sorted(waiting(engine))[:699], replay=None, why="no")
    Relay(engine, worker.sent, load()).sweep()
    (message,) = worker.sent.messages
    worker.process(jobs=message[2])
    assert states(engine) == {"dead": 699, "succeeded": 1}
    assert leftovers(engine) == 0


def test_a_processor_without_limits_any_more_runs_what_waits_in_its_line(
    engine: Engine,
    database_url: str,
    make_worker: MakeWorker,
    declared: list[Any],
) -> None:
    @processor("order.*", name=NAME, rate="1/h")
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    worker = make_worker()
    worker.process(deliver(database_url, events(1, 2, 3)))
    assert leftovers(engine) == 2
    declared.clear()
    processor("order.*", name=NAME)(work)
    later = make_worker(name="test:2")
    with engine.begin() as db:
        limits.register(db, [], [NAME])
    relay = Relay(engine, later.sent, load())
    relay.sweep()
    later.process(jobs=[id_ for _, _, ids in later.sent.messages for id_ in ids])
    assert states(engine) == {"succeeded": 3}
    assert one(engine, "SELECT count(*) FROM limited_jobs") == 0


def test_a_line_that_is_dissolved_in_part_goes_on_once_there_are_limits_again(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, limit_by="order_id", concurrency=1)
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    worker = make_worker()
    _admit_only(engine, worker, deliver(database_url, events(*"aabbcd")))
    with engine.begin() as db:
        limits.register(db, [], [NAME])
        freed = limit_waits.dissolve(db, limit=3)
        limits.register(db, [DECLARED], [])
    assert len(freed) == leftovers(engine) == 3
    of_line = "SELECT DISTINCT key FROM limited_jobs ORDER BY key"
    assert rows(engine, "SELECT key FROM limited_keys ORDER BY key") == rows(engine, of_line)
    worker.process(jobs=freed[:1])
    assert states(engine) == {"succeeded": 4, "pending": 2}
    worker.process(jobs=freed)
    assert states(engine) == {"succeeded": 6}


def test_a_line_that_a_job_enters_meanwhile_is_dissolved_afterwards(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, concurrency=1)
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    _admit_only(engine, make_worker(), deliver(database_url, events("a")))
    with engine.begin() as db:
        limits.register(db, [], [NAME])
    with engine.begin() as entering, engine.begin() as db:
        assert limited_line.lock(entering, NAME) is not None
        assert limit_waits.dissolve(db, limit=9) == []
    with engine.begin() as db:
        assert limit_waits.dissolve(db, limit=9) == waiting(engine)
    assert one(engine, "SELECT count(*) FROM limited_keys") == 0


def test_a_job_in_the_line_brings_back_its_key_and_writes_none_that_is_there(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, limit_by="order_id", concurrency=1)
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    worker = make_worker()
    _admit_only(engine, worker, deliver(database_url, events("a", "b")))
    lost = one(engine, "SELECT min(key::text)::uuid FROM limited_keys")
    execute(engine, "DELETE FROM limited_keys WHERE key = :key", key=lost)
    kept = "SELECT key, xmin::text, xmax::text FROM limited_keys WHERE key <> :key"
    before = rows(engine, kept, key=lost)
    with engine.begin() as db:
        pulling.enter(db, DECLARED, [(job, None) for job in waiting(engine)])
    assert rows(engine, kept, key=lost) == before
    worker.process(jobs=waiting(engine)[:1])
    assert states(engine) == {"succeeded": 2}


def test_with_an_order_too_a_line_that_no_worker_takes_is_parked_and_goes_on_afterwards(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, ordered_by="order_id", concurrency=2)
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    worker = make_worker()
    _admit_only(engine, worker, deliver(database_url, events(*"ababab")))
    worker.sent.messages.clear()
    parking = Parking(engine, clock=lambda: 1.0, after_s=0)
    relay = Relay(engine, worker.sent, load(), parking=parking)
    _alive(engine, "another")
    relay.sweep()
    parked = "SELECT count(*) FROM jobs WHERE hinted_until = 'infinity'"
    assert (one(engine, parked), worker.sent.messages) == (2, [])
    _alive(engine, NAME)
    relay = Relay(engine, worker.sent, load())
    relay.sweep()
    assert one(engine, parked) == 0
    worker.process(jobs=[id_ for _, _, ids in worker.sent.messages for id_ in ids])
    assert states(engine) == {"succeeded": 6}


def _alive(engine: Engine, name: str) -> None:
    """Have a worker that is alive and takes a processor."""
    process = ProcessIdentity(
        id=f"worker of {name}",
        kind="worker",
        host="h",
        pid=1,
        version="1",
        queues=("events",),
        processors=(name,),
    )
    with engine.begin() as db:
        heartbeats.upsert(db, process)


def test_a_worker_hands_a_line_on_to_the_present_queue_of_its_processor(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, queue="new", concurrency=9)
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    worker = make_worker(task_budget_s=1e-9)
    worker.process(deliver(database_url, events(*range(40))))
    execute(engine, "UPDATE jobs SET queue = 'old'")
    worker.sent.messages.clear()
    worker.process(jobs=waiting(engine))
    assert [queue for queue, _, _ in worker.sent.messages] == ["new.continued"]


def test_a_limit_that_was_set_holds_for_the_next_job_and_goes_back_to_what_is_declared(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, rate="2/h", limit_by="order_id", key_rate="1/h")
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    worker = make_worker()
    worker.process(deliver(database_url, events("a", "a", "a", "b", "b")))
    assert Counter(ran(engine)) == {"a": 1, "b": 1}
    _set(engine, {"rate": None, "key_rate": "2/h"})
    worker.process(jobs=waiting(engine)[:1])
    assert Counter(ran(engine)) == {"a": 2, "b": 2}
    _set(engine, {"key_rate": None})
    worker.process(jobs=waiting(engine)[:1])
    assert leftovers(engine) == 1  # the declared rate is in force again
    _set(engine, {"rate": "100/s", "key_rate": None})
    worker.process(jobs=waiting(engine)[:1])
    assert Counter(ran(engine)) == {"a": 3, "b": 2}


def _set(engine: Engine, bounds: dict[str, Any]) -> None:
    with engine.begin() as db:
        assert limits.lock(db, NAME) is not None
        limits.override(db, NAME, bounds, by="sara", at=_now(db))


def test_a_rate_is_kept_to_and_used_by_one_worker_and_a_relay(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    """A worker that waits for the rate is free meanwhile, and little of it is lost by that."""

    @processor("order.*", name=NAME, rate="40/s")
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    arrived = deliver(database_url, events(*range(400)))
    began = time.monotonic()
    with Crowd(engine, [make_worker()]) as crowd:
        for start in range(0, len(arrived), 50):
            crowd.messages.put((arrived[start : start + 50], []))
        until(lambda: len(ran(engine)) >= 320, what="most have run")
        spent_s = time.monotonic() - began
    assert spent_s >= 7  # windows of a second with 40 each: the eighth begins after seven


def test_workers_at_once_never_exceed_a_concurrency_or_a_keys(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    together = Together()
    of_key = {key: Together() for key in ("a", "b", "c")}

    @processor("order.*", name=NAME, concurrency=3, limit_by="order_id", key_concurrency=2)
    def work(event: Event, db: Connection) -> None:
        with together, of_key[event.data["order_id"]]:
            note(event, db)

    arrived = deliver(database_url, events(*["a", "b", "c", "a"] * 30))
    with Crowd(engine, [make_worker(name=f"test:{n}") for n in range(4)]) as crowd:
        for start in range(0, len(arrived), 7):
            crowd.messages.put((arrived[start : start + 7], []))
        until(lambda: states(engine) == {"succeeded": 120}, what="all have run")
    assert together.most <= 3
    assert max(each.most for each in of_key.values()) <= 2
    assert leftovers(engine) == 0


def test_a_job_that_waits_for_its_retry_is_not_hidden_from_the_relay(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    """It was in two messages, and has failed since the second one was read."""

    @processor("order.*", name=NAME, limit_by="order_id", concurrency=1)
    def work(event: Event, db: Connection) -> None:
        raise RuntimeError

    worker = make_worker()
    worker.process(deliver(database_url, events("one")))
    execute(engine, "UPDATE jobs SET next_attempt_at = now() + interval '1 min'")
    retry = one(engine, "SELECT id FROM jobs WHERE state = 'retrying'")
    with engine.begin() as db:
        pulling.enter(db, DECLARED, [(retry, limited_line.NO_KEY)])
    assert one(engine, "SELECT hinted_until FROM jobs") is None
    assert leftovers(engine) == 0


def test_a_job_whose_place_is_not_tidied_up_enters_the_line_again(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    """And its key does not wait for ever for it to end."""

    @processor("order.*", name=NAME, limit_by="order_id", key_concurrency=1)
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    worker = make_worker()
    worker.only_place()
    worker.process(deliver(database_url, events("one", "one")))
    retry, neighbour = waiting(engine)
    key = uuid4()
    claiming = Claiming(worker="other", lease_s=60, max_attempts=3)
    declared = DeclaredLimits(processor=NAME, limit_by="order_id", bounds=Bounds(key_concurrency=1))
    with engine.begin() as db:
        pulling.enter(db, declared, [(retry, key), (neighbour, key)])
        (held,) = pulling.pull(db, declared, at_most=5, claiming=claiming)
        assert pulling.pull(db, declared, at_most=5, claiming=claiming) == []
    with engine.begin() as db:
        line = limited_line.lock(db, NAME)
        assert line is not None
        limited_line.tidy(db, line)
        released = Failure(
            id=held.id, attempt=held.attempt, outcome=Outcome.RELEASED, retry_in_s=0.0
        )
        assert jobs.fail(db, [released]) == {held.id}
        assert limited_line.enter(db, line, [(held.id, key)]) == [held.id]
    assert leftovers(engine) == 2
    make_worker(name="test:2").process(jobs=waiting(engine))
    assert states(engine) == {"succeeded": 2}


def test_a_worker_that_is_gone_gives_its_place_back(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, concurrency=1)
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    worker = make_worker()
    _admit_only(engine, worker, deliver(database_url, events(1, 2)))
    claiming = Claiming(worker="gone", lease_s=60, max_attempts=9)
    with engine.begin() as db:
        (held,) = pulling.pull(db, DECLARED, at_most=5, claiming=claiming)
    with engine.begin() as db:
        assert pulling.pull(db, DECLARED, at_most=5, claiming=claiming) == []
    lost = Failure(
        id=held.id, attempt=held.attempt, outcome=Outcome.LOST, retry_in_s=0, rescued=True
    )
    with engine.begin() as db:
        assert jobs.fail(db, [lost]) == {held.id}
    worker.process(jobs=[held.id])
    assert states(engine) == {"succeeded": 2}


def test_a_claim_of_a_key_looks_at_few_rows_whatever_waits_of_another(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, limit_by="order_id", key_concurrency=1)
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    worker = make_worker()
    _admit_only(engine, worker, deliver(database_url, events(*["flood"] * 50, "other")))
    claiming = Claiming(worker="w", lease_s=60, max_attempts=9)
    with engine.begin() as db:
        first = pulling.pull(db, DECLARED, at_most=1, claiming=claiming)
        assert len(first) == 1
    _set(engine, {"key_concurrency": 1})
    with engine.begin() as db:
        first += pulling.pull(db, DECLARED, at_most=9, claiming=claiming)
        assert len(first) == 2
        line = limited_line.lock(db, NAME)
        assert line is not None
        assert limited_line.ready(db, line, limit=9) == []
    with engine.begin() as db:
        jobs.finish(db, [Lease(id=job.id, attempt=1) for job in first])
        line = limited_line.lock(db, NAME)
        assert line is not None
        limited_line.tidy(db, line)
        assert len(limited_line.ready(db, line, limit=9)) == 1
