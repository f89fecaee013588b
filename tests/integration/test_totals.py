"""Counts that triggers keep: right, and nobody waits for another in a circle to keep them."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from ingest.store.pipeline import admission
from ingest.store.pipeline.admission import Admitted
from ingest.store.pipeline.jobs import NewJobs
from ingest.store.reports import totals
from tests.support.deliver import body, deliver, order
from tests.support.rows import execute, one, rows
from tests.support.slots import on_servers_of_its_own, slot_of, two_backends, until_waiting

ORDERS = NewJobs(type="order.created", processor="orders", queue="events", max_attempts=3)


def admit(
    connection: Connection, deliveries: Sequence[UUID], processors: Sequence[NewJobs] = (ORDERS,)
) -> Admitted:
    with connection.begin():
        return admission.admit(
            connection, deliveries, processors, replay_queue="replay", redispatch_after_s=10
        )


def readmit(engine: Engine, named: Sequence[UUID]) -> None:
    """As a replay of events without a job does."""
    execute(
        engine,
        "INSERT INTO unadmitted (delivery, source, event_id, type, fingerprint, received_at,"
        " queue, hint_at, replay) SELECT id, source, event_id, type, fingerprint, received_at,"
        " 'replay', now(), 7 FROM events WHERE id = ANY(:ids)",
        ids=list(named),
    )


def check_totals(engine: Engine) -> None:
    """What the triggers counted is what there is."""
    counted = rows(
        engine, "SELECT counted, CAST(sum(rows) AS bigint) AS rows FROM totals GROUP BY 1"
    )
    told = {row["counted"]: row["rows"] for row in counted}
    for table in ("events", "duplicates", "jobs", "unhandled"):
        assert told.get(table, 0) == one(engine, f"SELECT count(*) FROM {table}"), table
    lacking = "SELECT id FROM events WHERE id NOT IN (SELECT event FROM jobs)"
    unhandled = {row["event"] for row in rows(engine, "SELECT event FROM unhandled")}
    assert unhandled == {row["id"] for row in rows(engine, lacking)}
    with engine.connect() as connection:
        found = totals.read(connection)
    states = {
        row["state"]: row["jobs"]
        for row in rows(engine, "SELECT state, count(*) AS jobs FROM jobs GROUP BY state")
    }
    assert (found.events.total, found.events.unhandled) == (told["events"], len(unhandled))
    assert (found.jobs.pending, found.jobs.succeeded) == (
        states.get("pending", 0),
        states.get("succeeded", 0),
    )


@on_servers_of_its_own
def test_who_admits_and_who_replays_in_one_slot_do_not_wait_in_a_circle(
    engine: Engine, database_url: str
) -> None:
    """New events are counted before their jobs, events that get their first job after them."""
    with two_backends(engine, of_one_slot=True) as (admitting, replaying):
        unhandled = deliver(database_url, [order(1)])
        admit(admitting, unhandled, [])
        readmit(engine, unhandled)
        fresh = deliver(database_url, [body("ticket.escalated", {"ticket_id": 5}), order(2)])
        slot = slot_of(admitting)
        row = "INSERT INTO totals VALUES ('jobs', :slot, 0) ON CONFLICT DO NOTHING"
        execute(engine, row, slot=slot)  # the migration made that of slot 0
        with ThreadPoolExecutor(2) as pool:
            with engine.begin() as holding:  # until both wait, in this order
                holding.execute(
                    text("SELECT FROM totals WHERE counted = 'jobs' AND slot = :slot FOR UPDATE"),
                    {"slot": slot},
                )
                replay = pool.submit(admit, replaying, unhandled)
                until_waiting(engine, 1)
                admission = pool.submit(admit, admitting, fresh)
                until_waiting(engine, 2)
            assert len(replay.result(300).jobs) == 1
            assert len(admission.result(300).jobs) == 1
    check_totals(engine)


def test_whoever_admits_replays_and_repeats_at_once_the_totals_are_right(
    engine: Engine, database_url: str
) -> None:
    bodies = [order(n) for n in range(60)]
    bodies += [body("ticket.escalated", {"ticket_id": n}) for n in range(60)]
    unhandled = deliver(database_url, bodies[:30])
    with engine.connect() as connection:
        admit(connection, unhandled, [])
    readmit(engine, unhandled)
    batches = [unhandled[n::5] for n in range(5)]
    for _ in range(3):
        again = deliver(database_url, bodies)
        batches += [again[n::6] for n in range(6)]

    def work(batch: Sequence[UUID]) -> None:
        with engine.connect() as connection:
            while admit(connection, batch).unsettled:
                pass

    with ThreadPoolExecutor(20) as pool:
        for done in [pool.submit(work, batch) for batch in batches]:
            done.result(300)
    check_totals(engine)
    assert one(engine, "SELECT count(*) FROM unadmitted") == 0
    assert one(engine, "SELECT count(*) FROM jobs") == 60
    assert one(engine, "SELECT count(*) FROM unhandled") == 60
