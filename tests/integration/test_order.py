"""Order per key, through real workers: jobs of one key run one after another, as received."""

import random
import struct
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text

from ingest.encryption.keys import BodyKeys
from ingest.store.bulk import replay
from ingest.store.pipeline import jobs, ordering, processors
from ingest.store.pipeline.jobs import ClaimedJob, Lease
from ingest.store.pipeline.processors import Registered
from ingest.store.reports import event_detail
from ingest.store.search.filters import EventFilter
from tests.integration.conftest import NoLeases, Worker
from tests.support.deliver import body, deliver
from tests.support.rows import execute, one, rows
from workers import Discard, Event, Snooze, outcome, processor
from workers.counts import Tally
from workers.recovery import rescue
from workers.relay.mending import OrderMending
from workers.retry import RetryPolicy

MakeWorker = Callable[..., Worker]
NAME = "shipping"


@pytest.fixture(autouse=True)
def _tables(engine: Engine) -> None:
    execute(engine, "CREATE TABLE ran (place serial, key text, step int, attempt int)")


def steps(key: object, *numbers: int, **data: Any) -> list[bytes]:
    """The bodies of the steps of an order."""
    return [
        body("order.status_changed", {"order_id": key, "step": n} | data, event_id=f"{key}-{n}")
        for n in numbers
    ]


def note(event: Event, db: Connection) -> None:
    """Keep that an event's step was taken."""
    db.execute(
        text("INSERT INTO ran (key, step, attempt) VALUES (:key, :step, :attempt)"),
        {
            "key": str(event.data.get("order_id")),
            "step": event.data["step"],
            "attempt": event.attempt,
        },
    )


def ran(engine: Engine, key: object) -> list[int]:
    """The steps of an order, in the order in which they were committed."""
    return [
        row["step"]
        for row in rows(
            engine, "SELECT step FROM ran WHERE key = :key ORDER BY place", key=str(key)
        )
    ]


def states(engine: Engine) -> dict[str, int]:
    """How many jobs are in each state; those behind another apart."""
    return {
        row["state"]: row["jobs"]
        for row in rows(
            engine,
            "SELECT CASE WHEN next_attempt_at = 'infinity' THEN 'behind' ELSE state END AS state,"
            " count(*) AS jobs FROM jobs GROUP BY 1",
        )
    }


def register(engine: Engine, worker: Worker) -> None:
    """As the worker process does when it starts."""
    with engine.begin() as db:
        processors.register(
            db,
            [
                Registered(
                    name=each.name,
                    types=each.types,
                    queue=each.queue,
                    batch=each.batch,
                    threads=each.threads,
                    max_attempts=each.max_attempts,
                    timeout_s=each.timeout_s,
                    ordered_by=each.order.ordered_by if each.order else None,
                    on_dead=each.order.on_dead if each.order else None,
                )
                for each in worker.registry
            ],
        )


def without_time(make_worker: MakeWorker) -> Worker:
    """A worker that reads keys and places, and has no time to run anything."""
    worker = make_worker(name="places:1")
    worker.only_place()
    return worker


def claim(db: Connection, ids: Sequence[int], *, of_a_key: int = 1) -> list[ClaimedJob]:
    """Claim those that are the first of their key, as a worker that is never heard of again."""
    runs = jobs.claim_ordered(
        db, ids, worker="gone", lease_s=60, max_attempts=3, limit=100, of_a_key=of_a_key
    )
    return runs.jobs


def drain(engine: Engine, worker: Worker) -> None:
    """Run what the relay would dispatch until nothing is due."""
    for _ in range(200):
        due = "SELECT id FROM jobs WHERE next_attempt_at <= now() + interval '1 min'"
        execute(engine, f"UPDATE jobs SET next_attempt_at = now() WHERE id IN ({due})")
        ids = [row["id"] for row in rows(engine, due)]
        if not ids:
            return
        worker.process(jobs=ids)
    raise AssertionError("never drained")


def leftovers(engine: Engine) -> int:
    """Rows of order that remain."""
    return int(
        one(engine, "SELECT (SELECT count(*) FROM ordered_jobs) + count(*) FROM keys_in_work")
    )


def test_the_jobs_of_a_key_run_in_the_order_received_whatever_is_admitted_first(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, ordered_by="order_id")
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    bodies = [step for n in range(6) for key in (1, 2, 3) for step in steps(key, n)]
    arrived = deliver(database_url, bodies)
    worker = make_worker()
    parts = [arrived[start : start + 4] for start in range(0, len(arrived), 4)]
    random.Random(5).shuffle(parts)
    for part in parts:
        worker.process(part)
    drain(engine, worker)
    for key in (1, 2, 3):
        assert ran(engine, key) == list(range(6))
    assert states(engine) == {"succeeded": 18}
    assert leftovers(engine) == 0


def test_nothing_runs_before_what_was_received_earlier_is_admitted(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, ordered_by="order_id")
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    first, second, third = deliver(database_url, [*steps(1, 0), *steps(1, 1), *steps(2, 0)])
    worker = make_worker()
    worker.process([second, third])
    assert ran(engine, 1) == ran(engine, 2) == []
    worker.process([first])  # who admits the last one runs what waited for it
    assert ran(engine, 1) == [0, 1]
    assert ran(engine, 2) == [0]


def pass_time(engine: Engine, seconds: int) -> None:
    """Bring forward until when the relay leaves jobs to others."""
    execute(
        engine, "UPDATE jobs SET hinted_until = hinted_until - make_interval(secs => :s)", s=seconds
    )


def dispatched(engine: Engine) -> list[int]:
    """What a sweep of the relay dispatches."""
    OrderMending(engine).sweep()
    with engine.begin() as db:
        return [
            id_
            for queue in jobs.queues(db)
            for id_ in jobs.dispatch_due(db, queue, limit=100, ttl_s=10)
        ]


def test_what_waits_for_its_place_is_tried_by_one_job_and_not_by_all(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, ordered_by="order_id")
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    first, *others = deliver(database_url, [*steps(1, 0, 1, 2), *steps(2, 0)])
    worker = make_worker()
    worker.process(others)
    oldest = one(engine, "SELECT min(id) FROM jobs")
    assert dispatched(engine) == []
    for _ in range(3):
        pass_time(engine, 15)
        assert dispatched(engine) == [oldest]
        worker.process(jobs=[oldest])
        assert dispatched(engine) == []
    assert ran(engine, 2) == []
    worker.process([first])
    assert (ran(engine, 1), ran(engine, 2)) == ([0, 1, 2], [0])
    assert leftovers(engine) == 0


def test_what_nobody_has_placed_is_placed_by_the_job_that_is_tried(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, ordered_by="order_id")
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    first, *others = deliver(database_url, [*steps(9, 0), *steps(1, 0, 1, 2)])
    worker = make_worker()
    worker.process(others)
    # As a worker leaves it that ends between the two.
    execute(engine, "DELETE FROM unadmitted WHERE delivery = :first", first=first)
    pass_time(engine, 15)
    worker.process(jobs=dispatched(engine))
    assert ran(engine, 1) == [0, 1, 2]


def test_the_relay_leaves_what_was_placed_to_its_worker_for_seconds_only(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, ordered_by="order_id")
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    first, *others = deliver(database_url, [*steps(9, 0), *steps(1, 0), *steps(2, 0)])
    make_worker().process(others)
    without_time(make_worker).process([first])
    assert one(engine, "SELECT count(*) FROM ordered_jobs WHERE placed") == 3
    pass_time(engine, 45)
    assert len(dispatched(engine)) == 3


def test_what_is_left_of_many_that_can_be_placed_is_tried_at_once(
    engine: Engine, database_url: str, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    @processor("order.*", name=NAME, ordered_by="order_id")
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    first, *others = deliver(database_url, steps(1, *range(7)))
    worker = make_worker()
    worker.process(others)
    monkeypatch.setattr(ordering, "PLACED_AT_ONCE", 3)
    worker.process([first])
    for ended in (3, 6, 7):
        assert ran(engine, 1) == list(range(ended))
        worker.process(jobs=dispatched(engine))
    assert leftovers(engine) == 0


def test_a_duplicate_that_was_waited_for_lets_the_others_run(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, ordered_by="order_id")
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    worker = make_worker()
    worker.process(deliver(database_url, steps(1, 0)))
    again, following = deliver(database_url, [*steps(1, 0), *steps(1, 1)])
    worker.process([following])
    assert ran(engine, 1) == [0]
    worker.process([again])
    assert ran(engine, 1) == [0, 1]


def test_what_commits_late_goes_before_what_has_not_begun(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, ordered_by="order_id")
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    begun = time.time()
    places = without_time(make_worker)
    places.process(deliver(database_url, steps(1, 2), now=begun))
    places.process(deliver(database_url, steps(1, 1), now=begun - 10))
    (later, earlier) = (
        row["id"] for row in rows(engine, "SELECT id FROM jobs ORDER BY event DESC")
    )
    with engine.begin() as db:
        assert claim(db, [later]) == []
        assert [job.id for job in claim(db, [earlier])] == [earlier]
    places.process(deliver(database_url, steps(1, 0), now=begun - 20))
    with engine.begin() as db:  # the key is in work
        ids = [row["id"] for row in rows(engine, "SELECT id FROM jobs")]
        assert claim(db, ids) == []


def test_a_queue_of_its_own_gets_what_had_to_wait(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, ordered_by="order_id", queue="slow")
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    first, second = deliver(database_url, steps(1, 0, 1))
    worker = make_worker()
    worker.process([second])
    ((queue, _, ids),) = worker.sent.messages
    assert queue == "slow"
    worker.process(jobs=ids)  # as the worker of that queue does
    assert ran(engine, 1) == []
    worker.process([first])
    messages = worker.sent.messages[1:]
    assert {queue for queue, _, _ in messages} == {"slow"}
    assert ran(engine, 1) == []
    for _, _, ids in messages:
        worker.process(jobs=ids)
    drain(engine, worker)
    assert ran(engine, 1) == [0, 1]


def test_keys_are_read_before_the_messages_other_jobs_run(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    """What others have received meanwhile waits for its place until they are."""
    placed = []

    @processor("order.*", name="other")
    def other(event: Event, db: Connection) -> None:
        placed.append(one(engine, "SELECT count(*) FROM ordered_jobs WHERE placed"))

    @processor("order.*", name=NAME, ordered_by="order_id")
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    make_worker().process(deliver(database_url, steps(1, 0, 1)))
    assert placed == [2, 2]
    assert ran(engine, 1) == [0, 1]


def test_what_is_admitted_through_the_replay_queue_is_not_waited_for(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    """Thousands of deliveries that were rejected once may be opened again, and take hours."""

    @processor("order.*", name=NAME, ordered_by="order_id")
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    opened, live = deliver(database_url, [*steps(9, 0), *steps(1, 0)])
    execute(engine, "UPDATE unadmitted SET queue = 'replay' WHERE delivery = :id", id=opened)
    worker = make_worker()
    worker.process([live])
    assert ran(engine, 1) == [0]
    worker.process([opened])
    assert ran(engine, 9) == [0]


def test_another_type_is_not_waited_for(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, ordered_by="order_id")
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    other = body("contact.created", {"contact_id": 1})
    _, mine = deliver(database_url, [other, *steps(1, 0)])
    make_worker().process([mine])
    assert ran(engine, 1) == [0]


def test_a_retry_keeps_its_place_and_other_keys_go_on(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, ordered_by="order_id", max_attempts=5)
    def work(event: Event, db: Connection) -> None:
        if event.data["order_id"] == 1 and event.data["step"] == 0 and event.attempt < 3:
            raise ConnectionError
        note(event, db)

    worker = make_worker()
    worker.process(deliver(database_url, [*steps(1, 0, 1, 2), *steps(2, 0, 1, 2)]))
    assert ran(engine, 1) == []
    assert ran(engine, 2) == [0, 1, 2]
    assert states(engine) == {"retrying": 1, "behind": 2, "succeeded": 3}
    drain(engine, worker)
    assert ran(engine, 1) == [0, 1, 2]
    assert leftovers(engine) == 0


def test_a_snooze_keeps_its_place(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, ordered_by="order_id")
    def work(event: Event, db: Connection) -> None:
        if event.data["step"] == 0 and event.attempt == 1:
            raise Snooze(3_600)
        note(event, db)

    worker = make_worker()
    worker.process(deliver(database_url, steps(1, 0, 1)))
    drain(engine, worker)
    assert ran(engine, 1) == []
    execute(engine, "UPDATE jobs SET next_attempt_at = now() WHERE state = 'retrying'")
    drain(engine, worker)
    assert ran(engine, 1) == [0, 1]


def _with_one_dead(
    engine: Engine, database_url: str, make_worker: MakeWorker, on_dead: str
) -> tuple[Worker, list[UUID], dict[str, bool]]:
    """Steps 0 to 3 of order 1, of which step 1 dies until it is mended; order 2 is well."""
    fate = {"is_mended": False}

    @processor("order.*", name=NAME, ordered_by="order_id", on_dead=on_dead)
    def work(event: Event, db: Connection) -> None:
        if event.data["order_id"] == 1 and event.data["step"] == 1 and not fate["is_mended"]:
            raise Discard("no")
        note(event, db)

    worker = make_worker()
    register(engine, worker)
    arrived = deliver(database_url, [*steps(1, 0, 1, 2, 3), *steps(2, 0, 1)])
    worker.process(arrived)
    drain(engine, worker)
    assert ran(engine, 2) == [0, 1]
    return worker, arrived, fate


def _record(engine: Engine) -> processors.ProcessorRecord:
    with engine.begin() as db:
        (record,) = processors.all_of_them(db)
    return record


def test_jobs_wait_behind_a_dead_letter_until_it_is_replayed(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    worker, arrived, fate = _with_one_dead(engine, database_url, make_worker, "wait")
    assert ran(engine, 1) == [0]
    assert states(engine) == {"succeeded": 3, "dead": 1, "behind": 2}
    record = _record(engine)
    assert (record.ordered_by, record.on_dead) == ("order_id", "wait")
    assert (record.pending, record.behind, record.blocked_keys) == (2, 2, 1)
    with engine.begin() as db:
        (waits,) = event_detail.of_event(db, arrived[3]).jobs
        (dead,) = event_detail.of_event(db, arrived[1]).jobs
    assert (waits.state, waits.waits_for, waits.is_behind_dead) == ("pending", arrived[1], True)
    assert (waits.next_attempt_at, waits.parked, dead.waits_for) == (None, False, None)
    fate["is_mended"] = True
    _replay(engine, arrived[1])
    drain(engine, worker)
    assert ran(engine, 1) == [0, 1, 2, 3]
    assert leftovers(engine) == 0


def test_jobs_wait_behind_a_dead_letter_until_it_is_discarded(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    worker, _, _ = _with_one_dead(engine, database_url, make_worker, "wait")
    with engine.begin() as db:
        (dead,) = db.execute(text("SELECT id FROM ingest.jobs WHERE state = 'dead'")).scalars()
        assert jobs.discard(db, [dead], replay=None, why="no") == 1
    drain(engine, worker)
    assert ran(engine, 1) == [0, 2, 3]
    assert leftovers(engine) == 0


def test_jobs_skip_a_dead_letter_and_a_replay_of_it_goes_before_what_has_not_begun(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    worker, arrived, fate = _with_one_dead(engine, database_url, make_worker, "skip")
    assert ran(engine, 1) == [0, 2, 3]
    assert leftovers(engine) == 0
    fate["is_mended"] = True
    with engine.begin() as db:
        processors.pause(db, NAME, by="sara", reason=None)
    worker.process(deliver(database_url, steps(1, 4, 5)))
    _replay(engine, arrived[1])
    with engine.begin() as db:
        processors.resume(db, NAME)
    drain(engine, worker)
    assert ran(engine, 1) == [0, 2, 3, 1, 4, 5]
    assert leftovers(engine) == 0


def _replay(engine: Engine, event: UUID) -> None:
    selection = EventFilter(ids=(event,))
    for _ in replay.run(engine, selection, requested_by="sara", reason=None, rate=None):
        pass


def test_a_head_whose_lease_ends_stays_the_head(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, ordered_by="order_id")
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    worker = make_worker(leases=NoLeases())
    worker.process(deliver(database_url, steps(9, 0)))
    first, second = deliver(database_url, steps(1, 0, 1))
    without_time(make_worker).process([first, second])
    ids = [row["id"] for row in rows(engine, "SELECT id FROM jobs WHERE state = 'pending'")]
    with engine.begin() as db:
        claimed = claim(db, ids)
    assert [job.event for job in claimed] == [first]
    with engine.begin() as db:
        assert claim(db, ids) == []
    held = [Lease(id=job.id, attempt=job.attempt) for job in claimed]
    failures = [
        jobs.Failure(
            id=lease.id,
            attempt=lease.attempt,
            outcome=jobs.Outcome.LOST,
            retry_in_s=0.0,
            rescued=True,
        )
        for lease in held
    ]
    with engine.begin() as db:
        jobs.fail(db, failures)
    alive = make_worker()
    drain(engine, alive)
    assert ran(engine, 1) == [0, 1]
    assert leftovers(engine) == 0


def test_one_key_with_many_jobs_holds_nobody_else(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, ordered_by="order_id")
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    arrived = deliver(database_url, [*steps(1, *range(60)), *steps(2, 0), *steps(3, 0)])
    worker = make_worker()
    worker.process(arrived)
    drain(engine, worker)
    place = {
        key: one(engine, "SELECT max(place) FROM ran WHERE key = :key", key=str(key))
        for key in (1, 2, 3)
    }
    assert max(place[2], place[3]) < 10 < place[1]
    assert ran(engine, 1) == list(range(60))


def test_a_list_holds_one_event_of_a_key(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    calls: list[list[int]] = []

    @processor("order.*", name=NAME, ordered_by="order_id", batch=True)
    def work(events: Sequence[Event], db: Connection) -> None:
        calls.append([event.data["order_id"] for event in events])
        for event in events:
            note(event, db)

    worker = make_worker()
    worker.process(
        deliver(database_url, [s for n in range(3) for k in (1, 2) for s in steps(k, n)])
    )
    drain(engine, worker)
    assert all(len(set(keys)) == len(keys) for keys in calls)
    assert ran(engine, 1) == ran(engine, 2) == [0, 1, 2]


def test_threads_keep_the_order(engine: Engine, database_url: str, make_worker: MakeWorker) -> None:
    @processor("order.*", name=NAME, ordered_by="order_id", threads=4)
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    worker = make_worker()
    worker.process(
        deliver(database_url, [s for n in range(8) for k in range(5) for s in steps(k, n)])
    )
    drain(engine, worker)
    for key in range(5):
        assert ran(engine, key) == list(range(8))
    assert leftovers(engine) == 0


def test_events_without_the_field_have_no_order_and_hold_nobody(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, ordered_by=("shop.id", "order_id"))
    def work(event: Event, db: Connection) -> None:
        if event.data["step"] == 0:
            raise Discard("no")
        note(event, db)

    worker = make_worker()
    register(engine, worker)
    worker.process(deliver(database_url, steps(1, 0, 1, 2)))
    worker.process(deliver(database_url, steps(2, 0, 1, shop={"id": 7})))
    drain(engine, worker)
    assert sorted(ran(engine, 1)) == [1, 2]
    assert ran(engine, 2) == []


def test_a_function_of_the_event_names_the_key_and_one_that_raises_is_a_dead_letter_at_once(
    engine: Engine, database_url: str, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_mended = False
    counted: list[tuple[str, str]] = []
    monkeypatch.setattr(
        Tally,
        "failed",
        lambda _tally, name, failure: counted.append((name, str(failure.outcome))),
    )

    def key(event: Event) -> object:
        if event.data["step"] == 1 and not is_mended:
            raise KeyError("shop")
        return event.data["order_id"]

    @processor("order.*", name=NAME, ordered_by=key)
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    worker = make_worker()
    register(engine, worker)
    arrived = deliver(database_url, steps(1, 0, 1, 2))
    worker.process(arrived)
    drain(engine, worker)
    assert ran(engine, 1) == [0, 2]
    (attempt,) = rows(engine, "SELECT outcome, error_type FROM attempts")
    assert attempt == {"outcome": "discarded", "error_type": "KeyError"}
    assert counted == [(NAME, "discarded")]
    is_mended = True
    _replay(engine, arrived[1])
    drain(engine, worker)
    assert ran(engine, 1) == [0, 2, 1]
    assert leftovers(engine) == 0


def test_a_function_that_ends_its_process_spends_an_attempt_and_holds_others_up_until_it_is_dead(
    engine: Engine, database_url: str, make_worker: MakeWorker, tmp_path: Path
) -> None:
    noted: list[bytes] = []

    def key(event: Event) -> object:
        noted.extend(path.read_bytes()[:16] for path in tmp_path.glob("*.flight"))
        return event.data["order_id"]

    @processor("order.*", name=NAME, ordered_by=key, max_attempts=1)
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    fatal, following = deliver(database_url, steps(1, 0, 1))
    worker = without_time(make_worker)
    register(engine, worker)
    worker.process([fatal])
    (job,) = [row["id"] for row in rows(engine, "SELECT id FROM jobs")]
    assert struct.unpack("<qq", noted[0]) == (job, 1)
    execute(engine, "UPDATE ordered_jobs SET key = NULL, placed = false")  # it was not read
    lost = Worker(engine, database_url, tmp_path, [], name="lost", effects=worker.effects)
    lost.record(Lease(id=job, attempt=1))
    lost.vanish()
    alive = make_worker(name="alive")
    alive.process([following])
    assert ran(engine, 1) == []
    rules = RetryPolicy(base_s=0.001, cap_s=0.001)
    assert rescue.recover_crashed(engine, tmp_path, rules, random=random.uniform) == 1
    drain(engine, alive)
    assert ran(engine, 1) == [1]
    (attempt,) = rows(engine, "SELECT job, number, outcome FROM attempts")
    assert attempt == {"job": job, "number": 1, "outcome": "lost"}


def test_a_job_whose_key_its_worker_died_over_is_tried_again_at_once(
    engine: Engine, database_url: str, make_worker: MakeWorker, tmp_path: Path
) -> None:
    """What was received later waits for its key, whatever its own key is."""

    @processor("order.*", name=NAME, ordered_by="order_id", max_attempts=3)
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    worker = without_time(make_worker)
    register(engine, worker)
    worker.process(deliver(database_url, steps(1, 0)))
    job = one(engine, "SELECT id FROM jobs")
    execute(engine, "UPDATE ordered_jobs SET key = NULL, placed = false")
    lost = Worker(engine, database_url, tmp_path, [], name="lost", effects=worker.effects)
    lost.record(Lease(id=job, attempt=1))
    lost.vanish()
    rules = RetryPolicy(base_s=3_600, cap_s=3_600)
    assert rescue.recover_crashed(engine, tmp_path, rules, random=lambda low, high: high) == 1
    assert one(engine, "SELECT state = 'retrying' AND next_attempt_at <= now() FROM jobs")
    assert one(engine, "SELECT failures FROM jobs") == 1


def test_a_processor_that_has_no_order_any_more_lets_all_run(
    engine: Engine, database_url: str, make_worker: MakeWorker, declared: list[Any]
) -> None:
    _with_one_dead(engine, database_url, make_worker, "wait")
    declared.clear()

    @processor("order.*", name=NAME)
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    worker = make_worker()
    register(engine, worker)
    OrderMending(engine).sweep()
    drain(engine, worker)
    assert sorted(ran(engine, 1)) == [0, 2, 3]
    assert leftovers(engine) == 0


def test_the_relay_wakes_what_code_of_a_release_before_left_behind(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.*", name=NAME, ordered_by="order_id")
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    worker = without_time(make_worker)
    register(engine, worker)
    worker.process(deliver(database_url, steps(1, 0, 1)))
    ids = [row["id"] for row in rows(engine, "SELECT id FROM jobs ORDER BY id")]
    other = make_worker(name="test:2")
    with engine.begin() as db:
        jobs.place(db, NAME, ("order.*",))
        (claimed,) = jobs.claim(db, ids, worker="old", lease_s=60, max_attempts=3)
        jobs.finish(db, [Lease(id=claimed.id, attempt=claimed.attempt)])
    drain(engine, other)
    assert ran(engine, 1) == []
    OrderMending(engine).sweep()
    drain(engine, other)
    assert ran(engine, 1) == [1]
    assert leftovers(engine) == 0


def test_a_body_that_a_worker_cannot_read_is_told_and_keeps_its_place(
    engine: Engine, database_url: str, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    @processor("order.*", name=NAME, ordered_by="order_id")
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    monkeypatch.setattr(outcome, "WAIT_FOR_KEY_S", 0.0)
    key = bytes(range(32))
    lacks = make_worker(name="lacks:1")
    lacks.process(deliver(database_url, steps(1, 0), keys=BodyKeys([key])))
    lacks.process(deliver(database_url, steps(1, 1)))
    told = rows(engine, "SELECT DISTINCT outcome, error_type FROM attempts")
    assert told == [{"outcome": "released", "error_type": "BodyKeyMissing"}]
    assert ran(engine, 1) == []
    has = make_worker(body_keys=b64encode(key).decode(), name="has:1")
    ids = [row["id"] for row in rows(engine, "SELECT id FROM jobs ORDER BY id")]
    has.process(jobs=ids)
    has.process(jobs=ids)
    assert ran(engine, 1) == [0, 1]
    assert leftovers(engine) == 0


def test_no_more_keys_are_read_once_the_process_is_to_end(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    read: list[int] = []

    def key(event: Event) -> object:
        read.append(event.data["step"])
        if len(read) == 2:
            ends.shutdown.begin()
        return event.data["order_id"]

    @processor("order.*", name=NAME, ordered_by=key)
    def work(event: Event, db: Connection) -> None:
        note(event, db)

    ends, other = make_worker(name="ends:1"), make_worker()
    ends.process(deliver(database_url, steps(1, 0, 1, 2, 3)))
    assert read == [0, 1]
    handed_on = [job for _, _, ids in ends.sent.messages for job in ids]
    other.process(jobs=handed_on)
    drain(engine, other)
    assert sorted(read) == [0, 1, 2, 3]
    assert ran(engine, 1) == [0, 1, 2, 3]
    assert leftovers(engine) == 0
