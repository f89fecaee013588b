"""Everything replays; history stays; what runs is left alone and said so."""

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from ingest.errors import NotFound
from ingest.settings import Settings
from ingest.sources.registry import configured
from ingest.store import partitions
from ingest.store.bulk import replay
from ingest.store.bulk.replay import Counts
from ingest.store.pipeline import admission, jobs
from ingest.store.pipeline.jobs import Failure, Lease, NewJobs, Outcome
from ingest.store.reports import event_detail, totals
from ingest.store.search.filters import EventFilter
from ingest.store.search.named import resolve
from tests.support.deliver import body, deliver, order
from tests.support.rows import execute, one, rows

ORDERS = NewJobs(type="order.created", processor="orders", queue="events", max_attempts=1)
NOTIFY = NewJobs(type="order.created", processor="notify", queue="slow", max_attempts=1)


def admit(
    engine: Engine, deliveries: Sequence[UUID], processors: Sequence[NewJobs] = (ORDERS,)
) -> list[int]:
    with engine.begin() as connection:
        admitted = admission.admit(
            connection, deliveries, processors, replay_queue="replay", redispatch_after_s=0
        )
    return [job.id for job in admitted.jobs]


def end(engine: Engine, ids: Sequence[int], *, dead: bool) -> None:
    """Run jobs to success or death."""
    with engine.begin() as connection:
        claimed = jobs.claim(connection, ids, worker="w", lease_s=60, max_attempts=1)
    with engine.begin() as connection:
        if dead:
            jobs.fail(
                connection,
                [
                    Failure(
                        id=job.id,
                        attempt=job.attempt,
                        outcome=Outcome.FAILED,
                        retry_in_s=None,
                        error_type="E",
                        error_message="no",
                    )
                    for job in claimed
                ],
            )
        else:
            jobs.finish(connection, [Lease(id=job.id, attempt=job.attempt) for job in claimed])


def run(engine: Engine, selection: EventFilter, **more: Any) -> Counts:
    arguments = {"requested_by": "sara", "reason": None, "rate": None} | more
    told = list(replay.run(engine, selection, **arguments))
    return told[-1] if told else Counts()


def count(engine: Engine, selection: EventFilter) -> Counts:
    with engine.connect() as connection:
        return replay.count(connection, selection)


def test_a_dead_letter_is_put_back_with_its_history(engine: Engine, database_url: str) -> None:
    ids = admit(engine, deliver(database_url, [order(1)]))
    end(engine, ids, dead=True)
    assert run(engine, EventFilter(state="dead"), reason="mended") == Counts(jobs=1)
    (job,) = rows(engine, "SELECT * FROM jobs")
    assert (job["state"], job["trigger"], job["queue"]) == ("pending", "replay", "replay")
    assert (job["failures"], job["attempt"]) == (0, 1)
    assert one(engine, "SELECT count(*) FROM attempts") == 1
    (kept,) = rows(engine, "SELECT * FROM replays")
    assert (kept["requested_by"], kept["reason"], kept["jobs"]) == ("sara", "mended", 1)
    assert kept["selection"]["state"] == "dead"
    assert kept["finished_at"] is not None


def test_a_success_that_is_replayed_stays_in_the_history(engine: Engine, database_url: str) -> None:
    (delivery,) = deliver(database_url, [order(1)])
    ids = admit(engine, [delivery])
    end(engine, ids, dead=False)
    run(engine, EventFilter(ids=(delivery,)))
    end(engine, ids, dead=False)
    with engine.connect() as connection:
        (job,) = event_detail.of_event(connection, delivery).jobs
    assert [(each.number, each.trigger, each.outcome) for each in job.attempts] == [
        (1, "delivery", "succeeded"),
        (2, "replay", "succeeded"),
    ]
    assert [each.replayed_by for each in job.attempts] == [None, "sara"]


def test_of_a_named_event_what_succeeded_is_left_alone_unless_it_is_asked_for(
    engine: Engine, database_url: str
) -> None:
    (delivery,) = deliver(database_url, [order(1)])
    dead, done = admit(engine, [delivery], [ORDERS, NOTIFY])
    end(engine, [dead], dead=True)
    end(engine, [done], dead=False)
    named = EventFilter(ids=(delivery,))
    selection = named.for_replay(all_jobs=False)
    assert count(engine, selection) == Counts(jobs=1, succeeded=1)
    assert run(engine, selection) == Counts(jobs=1)
    assert rows(engine, "SELECT id FROM jobs WHERE state = 'pending'") == [{"id": dead}]
    assert count(engine, named.for_replay(all_jobs=True)) == Counts(jobs=2)
    succeeded = EventFilter(ids=(delivery,), state="succeeded")
    assert succeeded.for_replay(all_jobs=False) == succeeded


def test_a_named_event_gets_the_job_that_it_lacks(engine: Engine, database_url: str) -> None:
    (delivery,) = deliver(database_url, [order(1)])
    end(engine, admit(engine, [delivery]), dead=False)
    selection = EventFilter(ids=(delivery,), processor="notify").for_replay(all_jobs=False)
    assert run(engine, selection) == Counts(events=1)
    admit(engine, [delivery], [ORDERS, NOTIFY])
    assert rows(engine, "SELECT processor, state FROM jobs ORDER BY id") == [
        {"processor": "orders", "state": "succeeded"},
        {"processor": "notify", "state": "pending"},
    ]


def test_a_selection_is_kept_without_what_it_leaves_open() -> None:
    """The release before does not know `leave_succeeded`, and refuses only selections that have
    it."""
    selection = EventFilter(types=("order.*",), raised_at="")
    assert selection.as_json() == {"types": ("order.*",), "raised_at": ""}
    assert EventFilter.from_json(selection.as_json()) == selection


def test_a_running_job_is_left_alone_and_said_so(engine: Engine, database_url: str) -> None:
    first, second = deliver(database_url, [order(1), order(2)])
    ids = admit(engine, [first, second])
    end(engine, ids[:1], dead=True)
    with engine.begin() as connection:
        jobs.claim(connection, ids[1:], worker="w", lease_s=60, max_attempts=1)
    selection = EventFilter(ids=(first, second))
    assert count(engine, selection) == Counts(jobs=1, running=1)
    assert run(engine, selection) == Counts(jobs=1, running=1)
    states = rows(engine, "SELECT state FROM jobs ORDER BY id")
    assert [row["state"] for row in states] == ["pending", "running"]


def test_a_dry_run_counts_what_the_run_then_touches(engine: Engine, database_url: str) -> None:
    ids = admit(engine, deliver(database_url, [order(n) for n in range(1_200)]))
    end(engine, ids[:1_100], dead=True)
    end(engine, ids[1_100:], dead=False)
    planned = count(engine, EventFilter(state="dead"))
    assert planned == Counts(jobs=1_100)
    assert one(engine, "SELECT count(*) FROM jobs WHERE state = 'dead'") == 1_100
    assert run(engine, EventFilter(state="dead")) == planned


def test_progress_is_told_batch_by_batch(engine: Engine, database_url: str) -> None:
    ids = admit(engine, deliver(database_url, [order(n) for n in range(1_200)]))
    end(engine, ids, dead=True)
    told = list(
        replay.run(engine, EventFilter(state="dead"), requested_by="sara", reason=None, rate=None)
    )
    assert [each.jobs for each in told] == [500, 1_000, 1_200]


def test_a_rate_spreads_the_jobs_over_time(engine: Engine, database_url: str) -> None:
    ids = admit(engine, deliver(database_url, [order(n) for n in range(700)]))
    end(engine, ids, dead=True)
    run(engine, EventFilter(state="dead"), rate=10)
    spread = one(
        engine, "SELECT extract(epoch FROM max(next_attempt_at) - min(next_attempt_at)) FROM jobs"
    )
    assert 69 < spread < 75
    due = one(
        engine,
        "SELECT count(*) FROM jobs WHERE next_attempt_at <="
        " (SELECT min(next_attempt_at) FROM jobs) + interval '2 s'",
    )
    assert due <= 35


def test_what_a_bug_ends_has_failed_and_holds_nothing_up(engine: Engine, database_url: str) -> None:
    end(engine, admit(engine, deliver(database_url, [order(1)])), dead=True)
    with pytest.raises(OverflowError):
        run(engine, EventFilter(state="dead"), rate=math.inf)
    (kept,) = rows(engine, "SELECT status, problem FROM replays")
    assert kept == {"status": "failed", "problem": "A bug in ingest: OverflowError."}


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (EventFilter(types=("order.created",)), {1, 2, 3}),
        (EventFilter(types=("order.*",)), {1, 2, 3}),
        (EventFilter(types=("contact.created",)), set()),
        (EventFilter(types=("order_created",)), set()),
        (EventFilter(search="order.created:2"), {2}),
        (EventFilter(search="نورة"), {3}),
        (EventFilter(search="50%"), set()),
        (EventFilter(since=datetime(2026, 1, 1, tzinfo=UTC)), {1, 2, 3}),
        (EventFilter(until=datetime(2026, 1, 1, tzinfo=UTC)), set()),
        (EventFilter(processor="orders"), {1, 2, 3}),
        (EventFilter(processor="notify"), set()),
    ],
)
def test_a_filter_selects(
    engine: Engine, database_url: str, selection: EventFilter, expected: set[int]
) -> None:
    bodies = [order(1), order(2, name="x"), order(3, name="نورة")]
    ids = admit(engine, deliver(database_url, bodies))
    end(engine, ids, dead=True)
    run(engine, selection)
    found = rows(
        engine,
        "SELECT split_part(e.event_id, ':', 2)::int AS number FROM jobs j"
        " JOIN events e ON e.id = j.event WHERE j.state = 'pending'",
    )
    assert {row["number"] for row in found} == expected


def test_unhandled_events_are_admitted_again(engine: Engine, database_url: str) -> None:
    deliveries = deliver(database_url, [order(1), body("ticket.escalated", {"ticket_id": 5})])
    admit(engine, deliveries, [])
    selection = EventFilter(types=("order.*",))
    assert count(engine, selection) == Counts(events=1)
    assert run(engine, selection) == Counts(events=1)
    (waiting,) = rows(engine, "SELECT * FROM unadmitted")
    assert (waiting["delivery"], waiting["queue"]) == (deliveries[0], "replay")
    made = admit(engine, deliveries, [ORDERS])
    assert len(made) == 1
    (job,) = rows(engine, "SELECT * FROM jobs")
    assert (job["queue"], job["trigger"]) == ("replay", "replay")
    assert job["replay"] == one(engine, "SELECT id FROM replays")


def test_a_new_processor_is_given_the_events_that_lack_its_job(
    engine: Engine, database_url: str
) -> None:
    deliveries = deliver(database_url, [order(1), order(2)])
    ids = admit(engine, deliveries, [ORDERS])
    end(engine, ids, dead=False)
    selection = EventFilter(types=("order.created",), processor="notify", state="unhandled")
    assert count(engine, selection) == Counts(events=2)
    run(engine, selection)
    admit(engine, deliveries, [ORDERS, NOTIFY])
    found = rows(engine, "SELECT processor, state, count(*) FROM jobs GROUP BY 1, 2 ORDER BY 1")
    assert found == [
        {"processor": "notify", "state": "pending", "count": 2},
        {"processor": "orders", "state": "succeeded", "count": 2},
    ]


def test_replaying_the_same_twice_at_once_is_harmless(engine: Engine, database_url: str) -> None:
    deliveries = deliver(database_url, [order(1)])
    admit(engine, deliveries, [])
    assert run(engine, EventFilter(types=("order.*",))) == Counts(events=1)
    assert run(engine, EventFilter(types=("order.*",))) == Counts(events=0)


def test_a_rejected_delivery_is_opened_again_from_its_bytes(
    engine: Engine, make_settings: Any, database_url: str
) -> None:
    (good,) = deliver(database_url, [order(1)])
    execute(engine, "UPDATE deliveries SET rejected = 'wrongly'")
    execute(engine, "DELETE FROM unadmitted")
    given: Settings = make_settings()
    with engine.begin() as connection:
        assert totals.read(connection).deliveries.rejected == 1
        assert replay.reopen(connection, configured(given.sources), [good]) == [good]
        assert replay.reopen(connection, configured(given.sources), [good]) == []
    assert len(admit(engine, [good])) == 1
    with engine.connect() as connection:
        counts = totals.read(connection)
    assert (counts.deliveries.rejected, counts.deliveries.accepted) == (0, 1)


def test_a_rejected_delivery_that_still_is_no_event_stays(
    engine: Engine, make_settings: Any, database_url: str
) -> None:
    (bad,) = deliver(database_url, [order(1)])
    execute(engine, "UPDATE deliveries SET rejected = 'body_not_json', body = 'x'")
    with engine.begin() as connection:
        assert replay.reopen(connection, configured(make_settings().sources), [bad]) == []
    assert one(engine, "SELECT rejected FROM deliveries") == "body_not_json"


def test_an_event_answers_to_its_id_its_name_and_its_duplicates_id(
    engine: Engine, database_url: str
) -> None:
    first, second = deliver(database_url, [order(1), order(1)])
    admit(engine, [first, second])
    with engine.connect() as connection:
        for name in (str(first), str(second), "order.created:1", str(first).upper()):
            assert resolve(connection, [name]) == (first,)
        for name in ("order.created:2", "nonsense", str(UUID(int=7))):
            with pytest.raises(NotFound, match="No event answers"):
                resolve(connection, [name])


def test_counts_of_everything(engine: Engine, database_url: str) -> None:
    deliveries = deliver(
        database_url,
        [order(1), order(1), order(2, total=1), order(2, total=2), body("x.y", {}), order(3)],
    )
    ids = admit(engine, deliveries[:5])
    end(engine, ids[:1], dead=False)
    end(engine, ids[1:], dead=True)
    with engine.connect() as connection:
        found = totals.read(connection)
    assert found.deliveries.accepted == 6
    assert (found.deliveries.duplicates, found.deliveries.conflicts) == (2, 1)
    assert (found.events.total, found.events.unhandled) == (3, 1)
    assert (found.jobs.succeeded, found.jobs.dead, found.jobs.pending) == (1, 1, 0)


def of_today(engine: Engine, database_url: str, bodies: Sequence[bytes]) -> tuple[date, list[int]]:
    """Have deliveries come at the beginning of a day and be admitted; returns the day, which stays
    theirs when midnight passes, and the jobs."""
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    deliveries = deliver(database_url, bodies, now=day.timestamp())
    return day.date(), admit(engine, deliveries)


def test_dedupe_outlives_the_bodies(engine: Engine, database_url: str) -> None:
    """Retention is a DROP: the ledger goes on knowing what came."""
    today, ids = of_today(engine, database_url, [order(1), order(2)])
    with engine.begin() as connection:
        assert partitions.drop(connection, today) == 2
    end(engine, ids, dead=False)
    with engine.begin() as connection:
        assert partitions.drop(connection, today) is None
        assert today not in partitions.days(connection)
    assert one(engine, "SELECT count(*) FROM deliveries") == 0
    with engine.begin() as connection:
        partitions.ensure(connection, today=today, days_ahead=0)
    assert admit(engine, deliver(database_url, [order(1)])) == []
    with engine.connect() as connection:
        counts = totals.read(connection)
    assert (counts.deliveries.accepted, counts.deliveries.duplicates) == (3, 1)


def test_what_has_lost_its_body_is_left_as_it_is(engine: Engine, database_url: str) -> None:
    today, ids = of_today(engine, database_url, [order(1), order(2), body("x.y", {})])
    end(engine, ids, dead=False)
    with engine.begin() as connection:
        partitions.drop(connection, today)
    succeeded = EventFilter(state="succeeded")
    assert count(engine, succeeded) == Counts(gone=2)
    assert count(engine, EventFilter(types=("x.*",))) == Counts(gone=1)
    assert run(engine, succeeded) == Counts()
    assert run(engine, EventFilter(types=("x.*",))) == Counts()
    found = rows(engine, "SELECT state FROM jobs")
    assert [row["state"] for row in found] == ["succeeded", "succeeded"]


def test_an_event_awaited_by_one_new_processor_may_be_replayed_for_another(
    engine: Engine, database_url: str
) -> None:
    deliveries = deliver(database_url, [order(1)])
    admit(engine, deliveries, [])
    for processor in ("orders", "notify"):
        assert run(engine, EventFilter(processor=processor, state="unhandled")) == Counts(events=1)
    admit(engine, deliveries, [ORDERS, NOTIFY])
    found = rows(engine, "SELECT processor FROM jobs ORDER BY processor")
    assert [row["processor"] for row in found] == ["notify", "orders"]


def test_a_day_is_not_dropped_under_a_replay_of_it(engine: Engine, database_url: str) -> None:
    today, ids = of_today(engine, database_url, [order(1)])
    end(engine, ids, dead=True)
    with engine.begin() as replaying:
        replaying.execute(text("SELECT FROM deliveries"))
        with (
            pytest.raises(OperationalError, match="lock timeout"),
            engine.begin() as connection,
        ):
            partitions.drop(connection, today)
    assert run(engine, EventFilter(state="dead")) == Counts(jobs=1)
    with engine.begin() as connection:
        assert partitions.drop(connection, today) == 1
