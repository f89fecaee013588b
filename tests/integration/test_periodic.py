"""Runs of periodic processors: each once, however many relays there are and whatever happens."""

import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from ingest import settings
from ingest.console.errors import NotPossible
from ingest.console.services.bulk_runner import BulkRunner
from ingest.console.services.commands import Commands
from ingest.errors import NotFound
from ingest.store.bulk import replay
from ingest.store.pipeline import jobs, processors, schedules
from ingest.store.pipeline.schedules import ScheduleRecord
from ingest.store.reports import heartbeats
from ingest.store.reports.heartbeats import ProcessIdentity
from ingest.store.search.filters import EventFilter
from tests.integration.conftest import Sent, Worker
from tests.integration.outcomes import run_due
from tests.support.lines import Lines
from tests.support.rows import execute, one, rows
from workers import Due, Event, Snooze, periodic, processor, wiring
from workers.registry import Declaration
from workers.relay import schedules as relay_schedules
from workers.relay.schedules import Schedules
from workers.relay.sweep import Relay

MakeWorker = Callable[..., Worker]
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOURS = [NOON + timedelta(hours=hour) for hour in range(100)]


class House:
    """A relay, its clock, and workers that have the processors declared so far."""

    def __init__(self, engine: Engine, declared: list[Declaration], make: MakeWorker) -> None:
        self.engine = engine
        self.now = NOON - timedelta(minutes=1)
        self.relay = self.another_relay()
        self._declared = declared
        self._make = make
        self._made = 0

    def another_relay(self) -> Schedules:
        return Schedules(self.engine, now=lambda _: self.now)

    def worker(self) -> Worker:
        """A worker that has just started, by the relay's clock."""
        self._made += 1
        made = self._make(name=f"test:{self._made}")
        with self.engine.begin() as connection:
            heartbeats.upsert(
                connection,
                ProcessIdentity(
                    id="a worker",
                    kind="worker",
                    host="h",
                    pid=1,
                    version="1",
                    queues=made.registry.queues,
                    processors=tuple(each.name for each in made.registry),
                ),
            )
            wiring.register(made.registry, connection)
        return made

    def leave(self) -> None:
        """The worker ends."""
        execute(self.engine, "DELETE FROM processes")

    def due(self, moment: datetime) -> None:
        """Nothing is decided from then on."""
        execute(self.engine, "UPDATE schedules SET next_due_at = :moment", moment=moment)

    def at(self, moment: datetime) -> int:
        """The relay looks at a time; returns how many runs it made."""
        self.now = moment
        return self.relay.sweep()

    def schedule(self, name: str = "hourly") -> ScheduleRecord:
        with self.engine.connect() as connection:
            return schedules.records(connection)[name]


@pytest.fixture
def house(engine: Engine, declared: list[Declaration], make_worker: MakeWorker) -> House:
    execute(engine, "CREATE TABLE runs (due_at timestamptz, previous timestamptz, missed int)")
    return House(engine, declared, make_worker)


def hourly(**rules: Any) -> None:
    """Declares a processor that keeps its runs."""

    @periodic("0 * * * *", name="hourly", **rules)
    def run(event: Event[Due], db: Connection) -> None:
        keep(event.data, db)


def keep(due: Due, db: Connection) -> None:
    db.execute(
        text("INSERT INTO runs VALUES (:due_at, :previous, :missed)"),
        {"due_at": due.due_at, "previous": due.previous_due_at, "missed": due.missed},
    )


def kept(engine: Engine) -> list[tuple[datetime, datetime | None, int]]:
    found = rows(engine, "SELECT due_at, previous, missed FROM runs ORDER BY due_at")
    return [(row["due_at"], row["previous"], row["missed"]) for row in found]


def test_a_run_is_made_when_it_is_due_and_works_as_any_event_does(
    house: House, engine: Engine
) -> None:
    hourly()
    worker = house.worker()
    house.due(HOURS[0])
    assert house.at(NOON - timedelta(seconds=1)) == 0
    assert house.at(NOON + timedelta(seconds=1)) == 1
    assert house.at(NOON + timedelta(seconds=2)) == 0
    run_due(engine, worker)
    assert house.at(HOURS[1]) == 1
    run_due(engine, worker)
    assert kept(engine) == [(HOURS[0], None, 0), (HOURS[1], HOURS[0], 0)]
    event = rows(engine, "SELECT source, event_id, type FROM events ORDER BY id")[0]
    assert event == {
        "source": "schedule",
        "event_id": "schedule.hourly:2026-06-01T12%3A00%3A00Z",
        "type": "schedule.hourly",
    }
    shown = house.schedule()
    assert (shown.next_due_at, shown.last_due_at, shown.last_state) == (
        HOURS[2],
        HOURS[1],
        "succeeded",
    )


def test_the_relay_dispatches_a_run_in_the_sweep_that_makes_it(
    house: House, engine: Engine
) -> None:
    hourly()
    house.worker()
    house.due(HOURS[0])
    house.now = HOURS[0]
    sent = Sent()
    Relay(engine, sent, settings.load(), schedules=house.relay).sweep()
    job = one(engine, "SELECT id FROM jobs")
    assert sent.messages == [("events.overdue", [], [job])]


def test_ten_relays_at_once_make_a_run_once(house: House, engine: Engine) -> None:
    hourly(overlap=True)
    house.worker()
    for hour in HOURS[:10]:
        house.due(hour)
        house.now = hour
        together = threading.Barrier(10, timeout=300)
        made: list[int] = []

        def look(relay: Schedules, together: threading.Barrier, made: list[int]) -> None:
            together.wait()
            made.append(relay.sweep())

        threads = [
            threading.Thread(target=look, args=(house.another_relay(), together, made))
            for _ in range(10)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(made) == 1
    assert one(engine, "SELECT count(*) FROM events") == 10
    assert one(engine, "SELECT count(*) FROM duplicates") == 0
    assert one(engine, "SELECT count(*) FROM deliveries") == 10


def test_another_relay_leaves_a_schedule_alone_that_one_holds(house: House, engine: Engine) -> None:
    hourly()
    house.worker()
    house.due(HOURS[0])
    with engine.begin() as connection:
        assert schedules.lock(connection, "hourly") is not None
        assert house.at(HOURS[0]) == 0
    assert house.at(HOURS[0]) == 1


def test_a_relay_that_dies_in_between_has_made_nothing(
    house: House, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    hourly()
    house.worker()
    house.due(HOURS[0])

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(schedules, "advance", die)
        with pytest.raises(KeyboardInterrupt):
            house.at(HOURS[0])
    for table in ("deliveries", "unadmitted", "events", "jobs"):
        assert one(engine, f"SELECT count(*) FROM {table}") == 0
    assert house.at(HOURS[0]) == 1


@pytest.mark.parametrize(
    ("missed", "runs"),
    [
        ("latest", [(HOURS[24], None, 24), (HOURS[25], HOURS[24], 0)]),
        ("none", [(HOURS[25], None, 25)]),
        (
            "all",
            [
                (hour, previous, 0)
                for hour, previous in zip(HOURS[:26], [None, *HOURS], strict=False)
            ],
        ),
    ],
)
def test_after_a_day_without_relays_the_rule_says_what_runs(
    house: House, engine: Engine, missed: str, runs: list[Any]
) -> None:
    hourly(missed=missed)
    worker = house.worker()
    house.due(HOURS[0])
    for moment in (HOURS[24] + timedelta(minutes=30), HOURS[25]):
        while house.at(moment):
            run_due(engine, worker)
    assert kept(engine) == runs


def test_what_falls_due_while_no_worker_is_alive_is_missed(house: House, engine: Engine) -> None:
    hourly()
    house.worker()
    house.due(HOURS[0])
    house.leave()
    assert house.at(HOURS[3]) == 0
    worker = house.worker()
    assert house.at(HOURS[3]) == 1
    run_due(engine, worker)
    assert kept(engine) == [(HOURS[3], None, 3)]


def test_a_paused_processor_has_no_run_and_one_when_it_is_resumed(
    house: House, engine: Engine
) -> None:
    hourly()
    worker = house.worker()
    house.due(HOURS[0])
    with engine.begin() as connection:
        processors.pause(connection, "hourly", by="amal", reason=None)
    assert house.at(HOURS[5]) == 0
    assert one(engine, "SELECT count(*) FROM jobs") == 0
    with engine.begin() as connection:
        processors.resume(connection, "hourly")
    assert house.at(HOURS[5]) == 1
    run_due(engine, worker)
    assert kept(engine) == [(HOURS[5], None, 5)]


def test_a_run_does_not_begin_while_another_is_unfinished(house: House, engine: Engine) -> None:
    open_after = [NOON]

    @periodic("0 * * * *", name="hourly")
    def run(event: Event[Due], db: Connection) -> None:
        if event.data.due_at >= open_after[0] and event.attempt == 1:
            raise Snooze(3600)
        keep(event.data, db)

    worker = house.worker()
    house.due(HOURS[0])
    assert house.at(HOURS[0]) == 1
    assert house.at(HOURS[1]) == 0  # pending
    run_due(engine, worker)
    assert one(engine, "SELECT state FROM jobs") == "retrying"
    assert house.at(HOURS[3]) == 0
    open_after[0] = HOURS[99]
    execute(engine, "UPDATE jobs SET next_attempt_at = now()")
    run_due(engine, worker)
    assert house.at(HOURS[3]) == 1
    run_due(engine, worker)
    assert kept(engine) == [(HOURS[0], None, 0), (HOURS[3], HOURS[0], 2)]


def test_a_dead_run_does_not_hold_up_the_next(house: House, engine: Engine) -> None:
    @periodic("0 * * * *", name="hourly", max_attempts=1)
    def run(event: Event, db: Connection) -> None:
        raise ValueError("the sender is away")

    worker = house.worker()
    house.due(HOURS[0])
    assert house.at(HOURS[0]) == 1
    run_due(engine, worker)
    assert house.schedule().last_state == "dead"
    assert house.at(HOURS[1]) == 1


def test_a_run_does_not_begin_while_an_earlier_one_is_replayed(
    house: House, engine: Engine
) -> None:
    @periodic("0 * * * *", name="hourly", max_attempts=1)
    def run(event: Event[Due], db: Connection) -> None:
        if event.data.due_at == HOURS[0] and event.attempt == 1:
            raise ValueError("the sender is away")
        keep(event.data, db)

    worker = house.worker()
    house.due(HOURS[0])
    for hour in HOURS[:2]:
        assert house.at(hour) == 1
        run_due(engine, worker)
    assert [row["state"] for row in rows(engine, STATES)] == ["dead", "succeeded"]
    first = one(engine, "SELECT id FROM jobs WHERE state = 'dead'")
    with engine.begin() as connection:
        number = replay.begin(
            connection, EventFilter(), action="replay", requested_by="amal", reason=None
        )
        jobs.requeue(connection, [first], replay=number, queue="events", delays_s=[0.0])
    assert house.at(HOURS[2]) == 0
    with pytest.raises(NotPossible, match="A run of hourly is unfinished"):
        run_by_hand(engine)
    run_due(engine, worker)
    assert house.at(HOURS[2]) == 1


STATES = "SELECT state FROM jobs ORDER BY id"


def test_what_fails_for_one_processor_holds_up_no_other(
    house: House, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = Lines()
    monkeypatch.setattr(relay_schedules, "log", lines)
    hourly()

    @periodic("0 * * * *", name="weekly")
    def run(event: Event, db: Connection) -> None: ...

    house.worker()
    house.due(HOURS[0])
    execute(
        engine,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE division_by_zero; END $$;"
        " CREATE TRIGGER refuse BEFORE UPDATE ON schedules FOR EACH ROW"
        " WHEN (OLD.processor = 'hourly') EXECUTE FUNCTION refuse()",
    )
    assert [house.at(HOURS[0]) for _ in range(2)] == [1, 0]
    assert one(engine, "SELECT processor FROM jobs") == "weekly"
    assert lines.events == ["run_not_made", "run_made"]
    assert (lines.kept[0][1]["processor"], lines.kept[0][1]["reason"]) == (
        "hourly",
        "sqlstate_22012",
    )
    execute(engine, "DROP TRIGGER refuse ON schedules")
    assert house.at(HOURS[0]) == 1


def test_without_postgresql_the_sweep_ends_at_the_first_processor(
    house: House, engine: Engine
) -> None:
    hourly()
    house.worker()
    house.due(HOURS[0])
    execute(
        engine,
        "CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$;"
        " CREATE TRIGGER cut BEFORE UPDATE ON schedules FOR EACH ROW EXECUTE FUNCTION cut()",
    )
    with pytest.raises(OperationalError):
        house.at(HOURS[0])
    execute(engine, "DROP TRIGGER cut ON schedules")
    assert house.at(HOURS[0]) == 1


def test_runs_that_may_overlap_do_not_wait_for_each_other(house: House, engine: Engine) -> None:
    hourly(overlap=True)
    house.worker()
    house.due(HOURS[0])
    assert [house.at(hour) for hour in HOURS[:3]] == [1, 1, 1]
    assert one(engine, "SELECT count(*) FROM jobs WHERE state = 'pending'") == 3


def test_a_clock_that_goes_forth_and_back_repeats_no_run(house: House, engine: Engine) -> None:
    hourly()
    worker = house.worker()
    house.due(HOURS[0])
    moments = [HOURS[0], HOURS[8], *HOURS[1:10]]  # eight hours forth, and back
    for moment in moments:
        house.at(moment - timedelta(minutes=10))
        house.at(moment)
        run_due(engine, worker)
    due_at = [due for due, _, _ in kept(engine)]
    assert due_at == HOURS[:10]
    assert one(engine, "SELECT count(*) FROM duplicates") == 0


def test_a_changed_schedule_counts_from_the_change_on(
    house: House, engine: Engine, declared: list[Declaration]
) -> None:
    hourly()
    house.worker()
    house.due(unchanged := datetime.now(UTC) + timedelta(hours=50))
    house.worker()
    assert house.schedule().next_due_at == unchanged
    declared.clear()

    @periodic("30 4 1 1 *", name="hourly", zone="Asia/Riyadh")
    def run(event: Event, db: Connection) -> None: ...

    house.worker()
    shown = house.schedule()
    assert (shown.expression, shown.zone) == ("30 4 1 1 *", "Asia/Riyadh")
    assert (shown.next_due_at.month, shown.next_due_at.hour) == (1, 1)
    assert shown.next_due_at > datetime.now(UTC)


def test_what_was_due_before_a_change_still_runs(
    house: House, engine: Engine, declared: list[Declaration]
) -> None:
    hourly()
    house.worker()
    house.due(HOURS[0])
    declared.clear()

    @periodic("30 4 1 1 *", name="hourly")
    def run(event: Event[Due], db: Connection) -> None:
        keep(event.data, db)

    worker = house.worker()
    assert house.at(HOURS[0]) == 1
    run_due(engine, worker)
    assert kept(engine) == [(HOURS[0], None, 0)]


def test_a_processor_that_is_gone_is_not_due_and_one_no_longer_periodic_has_no_schedule(
    house: House, engine: Engine, declared: list[Declaration]
) -> None:
    hourly()
    house.worker()
    house.due(HOURS[0])
    (gone,) = declared
    declared.clear()

    @processor("order.created", name="another")
    def another(event: Event, db: Connection) -> None: ...

    house.worker()
    execute(engine, "UPDATE processes SET processors = '{another}'")
    assert house.at(HOURS[2]) == 0
    declared.append(gone)
    house.worker()
    execute(engine, "UPDATE processes SET processors = '{another,hourly}'")
    assert house.at(HOURS[2]) == 1
    declared.clear()

    @processor("order.created", name="hourly")
    def plain(event: Event, db: Connection) -> None: ...

    house.worker()
    with engine.connect() as connection:
        assert schedules.records(connection) == {}


def test_no_other_processor_gets_runs_whatever_its_pattern(house: House, engine: Engine) -> None:
    hourly()

    @processor("*")
    def everything(event: Event, db: Connection) -> None: ...

    worker = house.worker()
    house.due(HOURS[0])
    house.at(HOURS[0])
    run_due(engine, worker)
    assert rows(engine, "SELECT processor, state FROM jobs") == [
        {"processor": "hourly", "state": "succeeded"}
    ]


def test_a_run_is_not_lost_to_a_worker_of_another_release_that_lacks_the_processor(
    house: House, engine: Engine, declared: list[Declaration]
) -> None:
    hourly()
    with_it = house.worker()
    house.due(HOURS[0])
    house.at(HOURS[0])
    declared.clear()
    run_due(engine, house.worker())  # has none
    assert one(engine, "SELECT state FROM jobs") == "pending"
    run_due(engine, with_it)
    assert one(engine, "SELECT state FROM jobs") == "succeeded"
    assert one(engine, "SELECT count(*) FROM unhandled") == 0


def test_a_zone_that_the_relay_does_not_know_stops_no_other_schedule(
    house: House, engine: Engine
) -> None:
    hourly()

    @periodic("0 * * * *", name="another")
    def another(event: Event, db: Connection) -> None: ...

    house.worker()
    house.due(HOURS[0])
    execute(engine, "UPDATE schedules SET zone = 'Atlantis' WHERE processor = 'another'")
    assert house.at(HOURS[0]) == 1
    assert house.schedule("another").next_due_at == HOURS[0]


class _Amal:
    name = "amal"
    via = "token"
    subject = None


def run_by_hand(engine: Engine, name: str = "hourly") -> UUID:
    from ingest.alerts import configuration

    changes = Commands(engine, settings.load(), BulkRunner(engine), {}, configuration.read(None))
    return changes.run_processor(_Amal(), name, "after the outage").event  # type: ignore[arg-type]


def test_a_run_by_hand_is_one_more_is_audited_and_moves_no_due_time(
    house: House, engine: Engine
) -> None:
    hourly()
    worker = house.worker()
    house.due(HOURS[0])
    house.at(HOURS[0])
    run_due(engine, worker)
    event = run_by_hand(engine)
    run_due(engine, worker)
    (_, (due_at, previous, missed)) = kept(engine)
    assert (previous, missed) == (HOURS[0], 0)
    assert due_at == one(engine, "SELECT received_at FROM events WHERE id = :id", id=event)
    shown = house.schedule()
    assert (shown.next_due_at, shown.last_due_at) == (HOURS[1], HOURS[0])
    assert (shown.last_event, shown.last_state) == (event, "succeeded")
    assert rows(engine, "SELECT by, action, target, reason FROM actions") == [
        {"by": "amal", "action": "run", "target": "hourly", "reason": "after the outage"}
    ]


def test_a_run_by_hand_is_refused_where_it_would_wait_or_overlap(
    house: House, engine: Engine
) -> None:
    hourly()
    house.worker()
    run_by_hand(engine)
    with pytest.raises(NotPossible, match="A run of hourly is unfinished"):
        run_by_hand(engine)
    house.due(HOURS[0])
    assert house.at(HOURS[0]) == 0  # that one is unfinished, too
    with engine.begin() as connection:
        processors.pause(connection, "hourly", by="amal", reason=None)
    with pytest.raises(NotPossible, match="hourly is paused"):
        run_by_hand(engine)
    with pytest.raises(NotFound, match="No worker has registered a periodic processor other"):
        run_by_hand(engine, "other")
    assert one(engine, "SELECT count(*) FROM actions") == 1


def test_runs_that_are_removed_by_retention_are_not_made_again(
    house: House, engine: Engine
) -> None:
    hourly()
    worker = house.worker()
    house.due(HOURS[0])
    house.at(HOURS[0])
    run_due(engine, worker)
    for table in ("jobs", "events", "deliveries"):
        execute(engine, f"DELETE FROM {table}")
    shown = house.schedule()
    assert (shown.last_due_at, shown.last_state) == (HOURS[0], None)
    assert house.at(HOURS[1]) == 1


def test_each_run_has_an_id_of_the_day_on_which_it_is_made(house: House, engine: Engine) -> None:
    hourly()
    house.worker()
    house.due(HOURS[0])
    relay = Schedules(engine, now=lambda _: HOURS[0], random=random.Random(1).randbytes)
    assert relay.sweep() == 1
    received = one(engine, "SELECT received_at FROM deliveries")
    assert abs(received - datetime.now(UTC)) < timedelta(minutes=10)
