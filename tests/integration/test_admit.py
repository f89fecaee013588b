import random
import threading
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from ingest.sources import operator
from ingest.store.pipeline import admission, jobs
from ingest.store.pipeline.admission import Admitted
from ingest.store.pipeline.jobs import Claimant, Lease, NewJobs
from tests.support.deliver import body, deliver, order
from tests.support.rows import execute, one, rows

ORDERS = NewJobs(type="order.created", processor="orders", queue="events", max_attempts=3)
NOTIFY = NewJobs(type="order.created", processor="notify", queue="slow", max_attempts=5)


def admit(
    engine: Engine, deliveries: Sequence[UUID], processors: Sequence[NewJobs] = (ORDERS,)
) -> Admitted:
    with engine.begin() as connection:
        return admission.admit(
            connection, deliveries, processors, replay_queue="replay", redispatch_after_s=10
        )


def test_a_delivery_becomes_an_event_and_a_job_for_each_processor(
    engine: Engine, database_url: str
) -> None:
    (delivery,) = deliver(database_url, [order(1)])
    admitted = admit(engine, [delivery], [ORDERS, NOTIFY])
    assert {(job.processor, job.queue) for job in admitted.jobs} == {
        ("orders", "events"),
        ("notify", "slow"),
    }
    (event,) = rows(engine, "SELECT * FROM events")
    assert event["id"] == delivery
    assert event["event_id"] == "order.created:1"
    states = rows(
        engine,
        "SELECT state, trigger, attempt, failures, max_attempts FROM jobs"
        " WHERE processor = 'orders'",
    )
    assert states[0] == {
        "state": "pending",
        "trigger": "delivery",
        "attempt": 0,
        "failures": 0,
        "max_attempts": 3,
    }
    assert one(engine, "SELECT count(*) FROM unadmitted") == 0


def test_a_worker_claims_as_many_as_it_asks_for_as_they_are_made(
    engine: Engine, database_url: str
) -> None:
    deliveries = deliver(database_url, [order(n) for n in range(3)])
    with engine.begin() as connection:
        admitted = admission.admit(
            connection,
            deliveries,
            [replace(ORDERS, claimed=2), NOTIFY],
            replay_queue="replay",
            redispatch_after_s=10,
            claimant=Claimant(worker="a", lease_s=60),
        )
    assert [(job.event, job.body) for job in admitted.claimed] == [
        (delivery, order(n)) for n, delivery in enumerate(deliveries[:2])
    ]
    assert sorted(job.processor for job in admitted.jobs) == ["notify"] * 3 + ["orders"]
    held = rows(
        engine,
        "SELECT processor, attempt, worker, lease_until > now() + interval '50 s' AS leased"
        " FROM jobs WHERE state = 'running'",
    )
    assert held == [{"processor": "orders", "attempt": 1, "worker": "a", "leased": True}] * 2
    with engine.begin() as connection:
        jobs.finish(connection, [Lease(id=job.id, attempt=1) for job in admitted.claimed])


def test_each_claimed_job_has_the_body_whoever_else_has_a_job_of_the_event(
    engine: Engine, database_url: str
) -> None:
    deliveries = deliver(database_url, [order(n) for n in range(3)])
    waits = NewJobs(type="order.created", processor="a", queue="events", max_attempts=3)
    with engine.begin() as connection:
        admitted = admission.admit(
            connection,
            deliveries,
            [
                waits,
                replace(ORDERS, claimed=3),
                replace(NOTIFY, claimed=2),
                replace(waits, processor="z"),
            ],
            replay_queue="replay",
            redispatch_after_s=10,
            claimant=Claimant(worker="a", lease_s=60),
        )
    bodies = {delivery: order(n) for n, delivery in enumerate(deliveries)}
    claimed = sorted((job.processor, job.event, job.body) for job in admitted.claimed)
    assert claimed == [
        *(("notify", delivery, bodies[delivery]) for delivery in deliveries[:2]),
        *(("orders", delivery, bodies[delivery]) for delivery in deliveries),
    ]
    assert len(admitted.jobs) == 7


def test_admitting_again_changes_nothing(engine: Engine, database_url: str) -> None:
    deliveries = deliver(database_url, [order(1), order(2)])
    admit(engine, deliveries)
    again = admit(engine, deliveries)
    assert again == Admitted(claimed=(), jobs=(), duplicates=0, conflicts=0, unsettled=0)
    assert one(engine, "SELECT count(*) FROM jobs") == 2


def test_duplicates_in_one_batch_and_in_later_ones_are_counted(
    engine: Engine, database_url: str
) -> None:
    first = admit(engine, deliver(database_url, [order(1), order(1), order(2)]))
    assert (len(first.jobs), first.duplicates, first.conflicts) == (2, 1, 0)
    second = admit(engine, deliver(database_url, [order(1)]))
    assert (len(second.jobs), second.duplicates) == (0, 1)
    assert one(engine, "SELECT count(*) FROM duplicates") == 2


def test_the_same_id_with_another_body_is_a_conflict_and_not_lost(
    engine: Engine, database_url: str
) -> None:
    first, other = deliver(database_url, [order(1, total=10), order(1, total=99)])
    admitted = admit(engine, [first, other])
    assert (len(admitted.jobs), admitted.duplicates, admitted.conflicts) == (1, 1, 1)
    (kept,) = rows(engine, "SELECT * FROM duplicates")
    assert (kept["delivery"], kept["event"], kept["conflict"]) == (other, first, True)
    raw = one(engine, "SELECT body FROM deliveries WHERE id = :id", id=other)
    assert b"99" in raw


def test_a_type_without_a_processor_is_kept_without_a_job(
    engine: Engine, database_url: str
) -> None:
    admitted = admit(engine, deliver(database_url, [body("ticket.escalated", {"ticket_id": 5})]))
    assert admitted.jobs == ()
    assert one(engine, "SELECT count(*) FROM events") == 1


def test_an_event_unadmitted_again_gets_only_the_jobs_it_lacks(
    engine: Engine, database_url: str
) -> None:
    (delivery,) = deliver(database_url, [order(1)])
    admit(engine, [delivery], [ORDERS])
    execute(
        engine,
        "INSERT INTO unadmitted (delivery, source, event_id, type, fingerprint, received_at,"
        " queue, hint_at, replay) SELECT id, source, event_id, type, fingerprint, received_at,"
        " 'replay', now(), 7 FROM events",
    )
    again = admit(engine, [delivery], [ORDERS, NOTIFY])
    assert [(job.processor, job.queue, job.trigger) for job in again.jobs] == [
        ("notify", "replay", "replay")
    ]
    assert again.duplicates == 0
    assert one(engine, "SELECT count(*) FROM duplicates") == 0


def test_a_storm_of_duplicates_in_parallel_makes_each_event_once(
    engine: Engine, database_url: str
) -> None:
    source = random.Random(5)
    bodies = [order(number) for number in range(100) for _ in range(3)]
    source.shuffle(bodies)
    deliveries = deliver(database_url, bodies)
    # Every delivery is hinted to two workers, in batches cut differently.
    batches = [deliveries[start : start + 20] for start in range(0, 300, 20)]
    again = list(deliveries)
    source.shuffle(again)
    batches += [again[start : start + 30] for start in range(0, 300, 30)]
    failures: list[BaseException] = []
    jobs: list[int] = []

    def work(batch: Sequence[UUID]) -> None:
        try:
            while (admitted := admit(engine, batch)).unsettled:
                jobs.extend(job.id for job in admitted.jobs)
            jobs.extend(job.id for job in admitted.jobs)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(batch,)) for batch in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    admit(engine, deliveries)
    assert failures == []
    assert one(engine, "SELECT count(*) FROM events") == 100
    assert one(engine, "SELECT count(*) FROM duplicates") == 200
    assert one(engine, "SELECT count(*) FROM jobs") == 100
    assert one(engine, "SELECT count(*) FROM unadmitted") == 0
    assert len(jobs) == len(set(jobs)) == 100


def test_an_event_that_another_worker_is_inserting_is_left_for_a_second_run(
    engine: Engine, database_url: str
) -> None:
    first, second = deliver(database_url, [order(1), order(1)])
    with engine.connect() as other:
        transaction = other.begin()
        admission.admit(other, [first], [ORDERS], replay_queue="replay", redispatch_after_s=10)
        found: list[Admitted] = []
        thread = threading.Thread(target=lambda: found.append(admit(engine, [second])))
        thread.start()
        _wait_until_blocked(engine)
        transaction.commit()
        thread.join()
    assert found[0].unsettled == 1
    assert one(engine, "SELECT count(*) FROM unadmitted") == 1
    settled = admit(engine, [second])
    assert (settled.duplicates, settled.unsettled) == (1, 0)


def _wait_until_blocked(engine: Engine) -> None:
    from tests.support.waiting import until

    until(
        lambda: one(
            engine,
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'",
        ),
        what="the second admission waits for the first",
    )


def test_finding_what_was_never_admitted_does_not_read_the_rest(
    engine: Engine, database_url: str
) -> None:
    """Its cost is that of what waits, whatever lies behind: the plans touch no other table."""
    deliver(database_url, [order(1)])
    with engine.connect() as connection:
        for statement in (admission._WAITING_QUEUES, admission._DISPATCH_OVERDUE):
            plan = "\n".join(
                connection.execute(
                    text(f"EXPLAIN {statement.text}"),
                    {"queue": "events", "limit": 100, "ttl_s": 1.0},
                ).scalars()
            )
            assert "deliveries" not in plan
            assert "events" not in plan.replace("'events'", "")


@pytest.mark.parametrize("event_type", ["order.created", "order.*"])
def test_a_processor_of_one_source_gets_its_events_and_what_was_made_of_them_by_editing(
    engine: Engine, database_url: str, event_type: str
) -> None:
    deliveries = deliver(database_url, [order(n) for n in range(3)])
    copy = operator.event_id("order.created", "awalchat", deliveries[1])
    others = operator.event_id("order.created", "shop", deliveries[2])
    for delivery, name in ((deliveries[1], copy), (deliveries[2], others)):
        execute(
            engine,
            "UPDATE unadmitted SET source = 'operator', event_id = :name WHERE delivery = :id",
            name=name,
            id=delivery,
        )
    of_it = replace(ORDERS, type=event_type, source="awalchat")
    of_another = replace(NOTIFY, type=event_type, source="awal")
    admitted = admit(engine, deliveries, [of_it, of_another])
    assert [job.processor for job in admitted.jobs] == ["orders", "orders"]
    held = rows(engine, "SELECT event FROM jobs")
    assert {row["event"] for row in held} == set(deliveries[:2])
