"""Counts of what happened in each minute: added to from everywhere, merged later, never changed."""

import itertools
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text

from ingest.store.pipeline import admission, jobs, metrics
from ingest.store.pipeline.compaction import Compaction
from ingest.store.pipeline.histograms import Histogram
from ingest.store.pipeline.jobs import Failure, Lease, NewJobs, Outcome
from ingest.store.pipeline.metrics import DUPLICATE, EVENT, FAILED, LAG, SUCCEEDED, Note, Point
from tests.integration.conftest import Worker
from tests.support.deliver import deliver, order
from tests.support.rows import execute, one, rows
from tests.support.slots import on_servers_of_its_own, slot_of, two_backends, until_waiting
from workers import Event, Snooze, processor

MakeWorker = Callable[..., Worker]

ORDERS = NewJobs(type="order.created", processor="orders", queue="events", max_attempts=3)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
NOW = datetime.now(UTC)
TODAY = NOW.replace(minute=0, second=0, microsecond=0)
"""The hour that has begun."""


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of the test, and not of the import."""
    now = datetime.now(UTC)
    monkeypatch.setitem(globals(), "NOW", now)
    monkeypatch.setitem(globals(), "TODAY", now.replace(minute=0, second=0, microsecond=0))


def over_time(
    engine: Engine, since: datetime, until: datetime, span: timedelta = MINUTE
) -> list[Point]:
    with engine.connect() as connection:
        return metrics.over_time(
            connection,
            since=since,
            until=until,
            span=span,
            counted=(EVENT, DUPLICATE, FAILED),
            timed=(SUCCEEDED, LAG),
        )


def lately(engine: Engine, what: str) -> int:
    """How often it happened since an hour or so."""
    points = over_time(engine, TODAY - HOUR, TODAY + 2 * HOUR)
    return sum(point.count(what) for point in points)


def insert(engine: Engine, found: Sequence[tuple[datetime, str, str, int, int, int]]) -> None:
    """Rows as they are: minute, what, label, bucket, slot, count."""
    with engine.begin() as connection:
        for minute, what, label, bucket, slot, count in found:
            connection.execute(
                text(
                    "INSERT INTO activity VALUES (:minute, :what, :label, :bucket, :slot, :count)"
                ),
                {
                    "minute": minute,
                    "what": what,
                    "label": label,
                    "bucket": bucket,
                    "slot": slot,
                    "count": count,
                },
            )


def compact(engine: Engine, *, now: datetime | None = None) -> int:
    return compaction(clock=lambda: 0.0).run(engine, now=now or NOW)


def compaction(clock: Callable[[], float]) -> Compaction:
    return Compaction(keep_minutes=2 * HOUR, keep_quarters=26 * HOUR, clock=clock)


def admit(
    engine: Engine, deliveries: Sequence[UUID], processors: Sequence[NewJobs] = ()
) -> list[int]:
    with engine.begin() as connection:
        admitted = admission.admit(
            connection, deliveries, processors, replay_queue="replay", redispatch_after_s=0
        )
    return [job.id for job in admitted.jobs]


def received(engine: Engine, moments: dict[UUID, datetime]) -> None:
    """As if deliveries had come then."""
    for delivery, moment in moments.items():
        execute(
            engine,
            "UPDATE unadmitted SET received_at = :at WHERE delivery = :id",
            at=moment,
            id=delivery,
        )


@on_servers_of_its_own
def test_notes_add_up_over_the_slots_of_many_connections(engine: Engine) -> None:
    notes = [
        Note(what=SUCCEEDED, label="orders", cell=3, count=2),
        Note(what=SUCCEEDED, label="notify", cell=3),
        Note(what=SUCCEEDED, label="orders", cell=5),
    ]
    with ExitStack() as opened:
        for _ in range(5):  # as many backends, and so slots
            connection = opened.enter_context(engine.connect())
            for _ in range(4):
                with connection.begin():
                    metrics.record(connection, notes)
    slots = {row["slot"] % 16 for row in rows(engine, "SELECT slot FROM activity")}
    assert len(slots) > 1
    assert lately(engine, SUCCEEDED) == 5 * 4 * 4
    with engine.connect() as connection:
        found = metrics.by_label(connection, SUCCEEDED, since=TODAY - HOUR)
    assert {label: each.total for label, each in found.items()} == {"orders": 60, "notify": 20}
    assert (found["orders"].counts[3], found["orders"].counts[5]) == (40, 20)


def test_no_notes_are_no_statement(engine: Engine) -> None:
    with engine.begin() as connection:
        metrics.record(connection, [])
    assert one(engine, "SELECT count(*) FROM activity") == 0


@on_servers_of_its_own
def test_who_notes_the_same_in_another_order_does_not_wait_in_a_circle(engine: Engine) -> None:
    first, second = Note(what=FAILED, label="a"), Note(what=SUCCEEDED, label="b")

    def note(connection: Connection, notes: Sequence[Note]) -> None:
        with connection.begin():
            metrics.record(connection, notes)

    with two_backends(engine, of_one_slot=True) as (one_way, other_way):
        slot = slot_of(one_way)
        this_minute = datetime.now(UTC).replace(second=0, microsecond=0)
        insert(
            engine,
            [
                (this_minute + n * MINUTE, each.what, each.label, 0, slot, 0)
                for n in range(2)
                for each in (first, second)
            ],
        )
        with ThreadPoolExecutor(2) as pool:
            with engine.begin() as holding:
                holding.execute(text("SELECT FROM activity WHERE label = 'a' FOR UPDATE"))
                noted = [pool.submit(note, one_way, [first, second])]
                until_waiting(engine, 1)
                noted.append(pool.submit(note, other_way, [second, first]))
                until_waiting(engine, 2)
            for each in noted:
                each.result(300)
    assert (lately(engine, FAILED), lately(engine, SUCCEEDED)) == (2, 2)


def test_events_and_duplicates_are_counted_in_the_minute_in_which_they_came(
    engine: Engine, database_url: str
) -> None:
    begins = TODAY - 3 * HOUR
    deliveries = deliver(database_url, [order(n) for n in (0, 1, 2, 0, 1, 2, 2)])
    minutes = [0, 1, 1, 1, 5, 5, 59]
    received(
        engine,
        {
            delivery: begins + minute * MINUTE + timedelta(seconds=59.9)
            for delivery, minute in zip(deliveries, minutes, strict=True)
        },
    )
    admit(engine, deliveries[:1])
    admit(engine, deliveries)
    points = over_time(engine, begins, begins + HOUR)
    assert [point.begins for point in points] == [begins + n * MINUTE for n in range(60)]
    counted = {
        what: {n: point.count(what) for n, point in enumerate(points) if point.count(what)}
        for what in (EVENT, DUPLICATE)
    }
    assert counted == {EVENT: {0: 1, 1: 2}, DUPLICATE: {1: 1, 5: 2, 59: 1}}
    hours = over_time(engine, begins, begins + 2 * HOUR, span=HOUR)
    assert [(each.count(EVENT), each.count(DUPLICATE)) for each in hours] == [(3, 4), (0, 0)]


def test_a_time_that_is_no_whole_number_of_spans_ends_with_a_part(engine: Engine) -> None:
    insert(engine, [(TODAY + n * MINUTE, EVENT, "", 0, 0, 1) for n in range(20)])
    points = over_time(engine, TODAY, TODAY + 12 * MINUTE, span=5 * MINUTE)
    assert [point.count(EVENT) for point in points] == [5, 5, 2]


def test_a_time_is_counted_whole_unless_the_pipeline_is_younger(engine: Engine) -> None:
    """After a quiet time one event is no rush: the quiet time was measured too."""

    def begins(since: datetime) -> datetime | None:
        with engine.connect() as connection:
            return metrics.counted_since(connection, since=since)

    assert begins(TODAY) is None
    insert(engine, [(TODAY + 5 * MINUTE, EVENT, "", 0, 0, 1)])
    assert begins(TODAY) == TODAY + 5 * MINUTE
    assert begins(TODAY + 6 * MINUTE) is None
    insert(engine, [(TODAY - DAY, EVENT, "", 0, 0, 1)])
    assert begins(TODAY) == TODAY


def test_what_ends_well_is_counted_with_how_long_it_took_and_how_late_that_is(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    @processor("order.created", name="orders", max_attempts=3)
    def work(event: Event, db: Connection) -> None:
        if event.data["order_id"] == 1:
            raise ValueError("no")
        if event.data["order_id"] == 2:
            raise Snooze(60)

    make_worker().process(deliver(database_url, [order(n) for n in range(6)]))
    assert (lately(engine, EVENT), lately(engine, SUCCEEDED), lately(engine, LAG)) == (6, 4, 4)
    assert lately(engine, FAILED) == 1  # a snooze is none
    with engine.connect() as connection:
        took = metrics.by_label(connection, SUCCEEDED, since=TODAY - HOUR)
        failed = metrics.by_label(connection, FAILED, since=TODAY - HOUR)
    assert {label: each.total for label, each in took.items()} == {"orders": 4}
    assert {label: each.total for label, each in failed.items()} == {"orders": 1}
    longest = took["orders"].percentile(1.0)
    assert longest is not None
    assert longest < 20


def test_a_replay_is_no_lag(engine: Engine, database_url: str, make_worker: MakeWorker) -> None:
    @processor("order.created", name="orders")
    def work(event: Event, db: Connection) -> None: ...

    worker = make_worker()
    worker.process(deliver(database_url, [order(1)]))
    job = one(engine, "SELECT id FROM jobs")
    with engine.begin() as connection:
        jobs.requeue(connection, [job], replay=1, queue="replay", delays_s=[0.0])
    worker.process(jobs=[job])
    assert (lately(engine, SUCCEEDED), lately(engine, LAG)) == (2, 1)


def test_what_is_not_committed_is_not_counted(engine: Engine, database_url: str) -> None:
    """The counts share the transaction of what they count, and its fence."""
    ids = admit(engine, deliver(database_url, [order(1), order(2)]), [ORDERS])
    with engine.begin() as connection:
        claimed = jobs.claim(connection, ids, worker="w", lease_s=60, max_attempts=3)
    stale = [Lease(id=job.id, attempt=job.attempt + 1) for job in claimed]
    with pytest.raises(Exception, match="taken over"), engine.begin() as connection:
        jobs.finish(connection, stale, [Note(what=SUCCEEDED, label="orders", count=2)])
    with engine.begin() as connection:
        jobs.fail(
            connection,
            [
                Failure(id=each.id, attempt=each.attempt, outcome=Outcome.FAILED, retry_in_s=None)
                for each in stale
            ],
        )
    assert (lately(engine, SUCCEEDED), lately(engine, FAILED)) == (0, 0)


def scattered(source: random.Random, count: int) -> list[tuple[datetime, str, str, int, int, int]]:
    """Rows of two days, of many slots; those of bucket 3 know their part or do not."""
    found = {
        (
            TODAY - source.randrange(48 * 60) * MINUTE,
            source.choice([EVENT, SUCCEEDED]),
            source.choice(["", "orders"]),
            *source.choice([(0, 0), (3, 0), (3, 1), (3, 4), (4, 1)]),
            source.randrange(16),
        )
        for _ in range(count)
    }
    return [
        (minute, what, label, bucket, 16 * part + slot, source.randrange(1, 100))
        for minute, what, label, bucket, part, slot in sorted(found)
    ]


def counted(histograms: Mapping[str, Histogram]) -> dict[tuple[str, int], float]:
    """Counts by cell. What is spread over cells adds up in any order, so it is rounded."""
    return {
        (name, cell): round(count, 6)
        for name, histogram in histograms.items()
        for cell, count in enumerate(histogram.counts)
        if count
    }


def told(points: Sequence[Point]) -> list[tuple[dict[str, int], dict[tuple[str, int], float]]]:
    return [(dict(point.counts), counted(point.histograms)) for point in points]


def test_compacting_changes_no_count(engine: Engine) -> None:
    source = random.Random(8)
    insert(engine, scattered(source, 3_000))
    kept = TODAY - 26 * HOUR

    def counts() -> list[object]:
        with engine.connect() as connection:
            labels = metrics.by_label(connection, SUCCEEDED, since=TODAY - 2 * DAY)
        return [
            told(over_time(engine, TODAY - 2 * DAY, TODAY + HOUR, span=HOUR)),
            told(over_time(engine, kept, TODAY + HOUR, span=15 * MINUTE)),
            told(over_time(engine, TODAY - HOUR, TODAY + HOUR, span=MINUTE)),
            counted(labels),
        ]

    before = counts()
    assert compact(engine) > 0
    assert counts() == before
    # Older than the bounds, an hour or a quarter of one is a row of each kind; lately, a minute is.
    assert (
        one(
            engine,
            "SELECT count(*) FROM activity WHERE minute < :kept AND (slot % 16 > 0"
            " OR extract(minute FROM minute AT TIME ZONE 'UTC')::int % 15 <> 0)",
            kept=TODAY - 2 * HOUR,
        )
        == 0
    )
    assert (
        one(
            engine,
            "SELECT count(*) FROM activity WHERE minute < :kept AND (slot % 16 > 0 OR minute <>"
            " date_trunc('hour', minute, 'UTC'))",
            kept=kept,
        )
        == 0
    )
    assert (
        one(
            engine,
            "SELECT count(*) FROM activity"
            " WHERE slot % 16 > 0 AND minute BETWEEN :since AND :until",
            since=NOW - HOUR,
            until=NOW - 3 * MINUTE,
        )
        == 0
    )
    assert compact(engine) == 0
    assert counts() == before


def test_minutes_that_are_still_counted_in_are_left_as_they_are(engine: Engine) -> None:
    now = TODAY + 30 * MINUTE
    recent = [(now - n * MINUTE, EVENT, "", 0, slot, 1) for n in (0, 1, 2) for slot in (3, 4)]
    insert(engine, recent)
    assert compact(engine, now=now) == 0
    assert compact(engine, now=now + 3 * MINUTE) == 3


def test_what_comes_late_is_added_to_an_hour_that_was_merged(engine: Engine) -> None:
    long_ago = TODAY - 40 * HOUR
    insert(engine, [(long_ago + n * MINUTE, EVENT, "", 0, 1, 1) for n in range(60)])
    compact(engine)
    for late in ([(0, 0, 5), (7, 2, 1)], [(0, 3, 1), (59, 0, 1)]):
        for minute, slot, count in late:
            execute(
                engine,
                "INSERT INTO activity VALUES (:minute, 'event', '', 0, :slot, :count)"
                " ON CONFLICT (minute, what, label, bucket, slot)"
                " DO UPDATE SET count = activity.count + excluded.count",
                minute=long_ago + minute * MINUTE,
                slot=slot,
                count=count,
            )
        compact(engine)
    assert rows(engine, "SELECT minute, slot, count FROM activity") == [
        {"minute": long_ago, "slot": 0, "count": 68}
    ]


OLD_AND_FINE = """
    SELECT count(DISTINCT date_trunc('hour', minute, 'UTC')) FROM activity
    WHERE minute <> date_trunc('hour', minute, 'UTC') AND minute < :before
"""
"""Hours of which minutes are left."""


def test_a_relay_that_was_away_for_weeks_catches_up_some_hours_at_a_time(engine: Engine) -> None:
    """No statement has all of it, and a pass ends though there is more: sweeps wait for it."""
    hours = [TODAY - 27 * HOUR, *(TODAY - n * DAY for n in (3, 30, 90, 400))]
    insert(
        engine, [(hour + n * MINUTE, EVENT, "", 0, n % 16, 1) for hour in hours for n in range(60)]
    )
    seconds = itertools.count(step=1.0)
    catching_up = compaction(clock=lambda: next(seconds))  # two seconds are two hours
    left = []
    for _ in range(4):
        catching_up.run(engine, now=NOW)
        left.append(one(engine, OLD_AND_FINE, before=TODAY - 26 * HOUR))
    assert left == [3, 1, 0, 0]
    [whole] = over_time(engine, TODAY - 401 * DAY, TODAY, span=401 * DAY)
    assert whole.count(EVENT) == 300
    assert one(engine, "SELECT count(*) FROM activity") == len(hours)


def test_what_comes_late_to_hours_that_were_passed_is_merged_the_day_after(engine: Engine) -> None:
    late = TODAY - 30 * HOUR
    relay = compaction(clock=lambda: 0.0)
    insert(engine, [(late + 2 * HOUR, EVENT, "", 0, 0, 1)])
    relay.run(engine, now=NOW)
    insert(engine, [(late + n * MINUTE, EVENT, "", 0, 0, 1) for n in range(10)])
    left = []
    for hours in (1, 25):
        relay.run(engine, now=NOW + hours * HOUR)
        left.append(one(engine, "SELECT count(*) FROM activity"))
    assert left == [11, 2]


def test_quarters_of_a_day_are_merged_once_they_are_old_enough(engine: Engine) -> None:
    """A relay that runs all the time, minute after minute, leaves nothing behind."""
    insert(engine, [(TODAY + n * MINUTE, EVENT, "", 0, 0, 1) for n in range(60)])
    relay = compaction(clock=lambda: 0.0)
    rows_left = []
    for minutes in (60, 120, 135, 150, 180, 26 * 60, 27 * 60, 27 * 60 + 1):
        relay.run(engine, now=TODAY + minutes * MINUTE)
        rows_left.append(one(engine, "SELECT count(*) FROM activity"))
    assert rows_left == [60, 60, 46, 32, 4, 4, 1, 1]


def test_compacting_while_others_count_loses_nothing(engine: Engine, database_url: str) -> None:
    """Late deliveries are counted in minutes that are being merged."""
    deliveries = deliver(database_url, [order(n) for n in range(400)])
    source = random.Random(3)
    received(
        engine,
        {each: TODAY - source.randrange(10, 50) * MINUTE for each in deliveries[::2]}
        | {each: TODAY - 30 * HOUR - source.randrange(60) * MINUTE for each in deliveries[1::2]},
    )
    ended = threading.Event()

    def merge() -> None:
        while not ended.is_set():
            compact(engine, now=datetime.now(UTC))

    with ThreadPoolExecutor(10) as pool:
        merging = [pool.submit(merge) for _ in range(2)]
        try:
            batches = [deliveries[n::40] for n in range(40)]
            for done in [pool.submit(admit, engine, batch) for batch in batches]:
                done.result(300)
        finally:
            ended.set()
        for merged in merging:
            merged.result(300)
    points = over_time(engine, TODAY - 2 * DAY, TODAY + 2 * HOUR, span=HOUR)
    assert sum(point.count(EVENT) for point in points) == 400


def test_hours_begin_where_those_of_utc_do_whatever_the_servers_time_zone(
    engine: Engine,
) -> None:
    name = one(engine, "SELECT current_database()")
    execute(engine, f"ALTER DATABASE {name} SET timezone = 'Asia/Kolkata'")
    engine.dispose()
    long_ago = TODAY - 40 * HOUR
    insert(engine, [(long_ago + n * MINUTE, EVENT, "", 0, 1, 1) for n in range(60)])
    compact(engine)
    points = over_time(engine, long_ago - HOUR, long_ago + 2 * HOUR, span=HOUR)
    assert [point.count(EVENT) for point in points] == [0, 60, 0]
