"""Jobs that no worker can take are parked, out of the way of the others, and taken up by themselves
when a worker appears that takes them."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import Engine

from ingest import settings
from ingest.ids import received_at
from ingest.rates import Rate
from ingest.store.pipeline import admission, jobs, limited_line, processors, pulling
from ingest.store.pipeline.jobs import NewJobs, ParkedJobs
from ingest.store.pipeline.limits import Bounds, DeclaredLimits
from ingest.store.pipeline.processors import Registered
from ingest.store.reports import backlog, heartbeats
from ingest.store.reports.heartbeats import ALIVE_FOR, ProcessIdentity
from tests.integration.conftest import Sent
from tests.support.deliver import deliver, order
from tests.support.rows import execute, one, rows
from workers.relay.parking import Parking
from workers.relay.sweep import Relay

AFTER_S = 30.0
AT_ONCE = 2
_LINE = "SELECT job, key, place, claimed FROM limited_jobs ORDER BY place"


class Clock:
    """Time as a test tells it."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class House:
    """A relay and the workers that it sees, in one database."""

    def __init__(self, engine: Engine, database_url: str, *, limit: int = 10_000) -> None:
        self.engine = engine
        self.database_url = database_url
        self.clock = Clock()
        self.sent = Sent()
        self.relay = Relay(
            engine,
            self.sent,
            settings.load(redispatch_after_s=1000),
            parking=Parking(engine, clock=self.clock, after_s=AFTER_S, limit=limit),
        )

    def worker(
        self, name: str, processors_: Sequence[str], queues: Sequence[str] = ("events", "replay")
    ) -> ProcessIdentity:
        """A worker that is alive, of which each processor's queue is the first of its queues."""
        identity = ProcessIdentity(
            id=name,
            kind="worker",
            host="h",
            pid=1,
            version="1",
            queues=tuple(queues),
            processors=tuple(processors_),
        )
        with self.engine.begin() as connection:
            heartbeats.upsert(connection, identity)
            processors.register(connection, [registered(each, queues[0]) for each in processors_])
        return identity

    def leave(self, identity: ProcessIdentity) -> None:
        with self.engine.begin() as connection:
            heartbeats.remove(connection, identity)

    def make(self, processor: str, count: int, *, queue: str = "events", first: int = 0) -> None:
        """Due, unhinted jobs of a processor."""
        made = [order(n) for n in range(first, first + count)]
        with self.engine.begin() as connection:
            admission.admit(
                connection,
                deliver(self.database_url, made),
                [NewJobs(type="order.created", processor=processor, queue=queue, max_attempts=3)],
                replay_queue="replay",
                redispatch_after_s=0,
            )

    def enter(self, processor: str) -> None:
        """Put its jobs into the line of its limits: two may start."""
        declared = DeclaredLimits(
            processor=processor, limit_by=None, bounds=Bounds(rate=Rate(AT_ONCE, 3_600))
        )
        of_it = "SELECT id FROM jobs WHERE processor = :processor ORDER BY id"
        entries = [
            (row["id"], limited_line.NO_KEY)
            for row in rows(self.engine, of_it, processor=processor)
        ]
        with self.engine.begin() as connection:
            pulling.enter(connection, declared, entries)

    def sweep_late(self, sweeps: int = 1) -> None:
        """Sweep, and again when what lacks a worker has lacked it for long."""
        self.relay.sweep()
        self.clock.now += AFTER_S
        execute(self.engine, "UPDATE jobs SET hinted_until = NULL WHERE hinted_until < 'infinity'")
        for _ in range(sweeps):
            self.relay.sweep()

    def parked(self) -> list[tuple[str, str, str, int]]:
        with self.engine.connect() as connection:
            return [
                (each.processor, each.queue, each.reason, each.jobs)
                for each in jobs.parked(connection)
            ]

    def hints(self) -> dict[str, int]:
        """How many jobs were hinted, by lane."""
        found: dict[str, int] = {}
        for queue, _, ids in self.sent.messages:
            found[queue] = found.get(queue, 0) + len(ids)
        return found

    def aside(self) -> int:
        return int(one(self.engine, "SELECT count(*) FROM jobs WHERE due_at = 'infinity'"))


MakeHouse = Callable[..., House]


def registered(name: str, queue: str) -> Registered:
    return Registered(
        name=name,
        types=("order.created",),
        queue=queue,
        batch=False,
        threads=1,
        max_attempts=3,
        timeout_s=30.0,
    )


@pytest.fixture
def make_house(engine: Engine, database_url: str) -> MakeHouse:
    def make(**more: Any) -> House:
        return House(engine, database_url, **more)

    return make


def test_jobs_of_a_removed_processor_are_parked_and_those_behind_them_are_hinted(
    make_house: MakeHouse, engine: Engine
) -> None:
    house = make_house()
    house.make("removed", 3_000)
    house.make("live", 3, first=5_000)
    execute(
        engine,
        "UPDATE jobs SET next_attempt_at = now() - interval '1 h', hinted_until = NULL"
        " WHERE processor = 'removed'",
    )
    house.worker("w", ["live"])
    house.clock.now += AFTER_S
    house.relay.sweep()
    assert house.parked() == [("removed", "events", "unknown", 3_000)]
    assert house.hints() == {"events.overdue": 3}
    with engine.connect() as connection:
        oldest = one(engine, "SELECT event FROM jobs WHERE processor = 'live' ORDER BY id LIMIT 1")
        assert backlog.oldest(connection).job == received_at(oldest)


def test_what_comes_after_idle_hours_waits_for_a_worker_before_it_is_parked(
    make_house: MakeHouse,
) -> None:
    house = make_house()
    house.relay.sweep()
    house.clock.now += 3_600
    house.worker("w", ["live"])
    house.relay.sweep()
    house.make("removed", 3)
    house.relay.sweep()
    assert house.parked() == []
    house.sweep_late()
    assert house.parked() == [("removed", "events", "unknown", 3)]


def test_what_is_parked_is_never_written_again(make_house: MakeHouse, engine: Engine) -> None:
    house = make_house()
    house.make("removed", 20)
    house.worker("w", ["live"])
    house.clock.now += AFTER_S
    house.relay.sweep()
    before = rows(engine, "SELECT id, xmin::text FROM jobs ORDER BY id")
    for _ in range(5):
        house.sweep_late()
    assert rows(engine, "SELECT id, xmin::text FROM jobs ORDER BY id") == before


def test_they_are_taken_up_when_a_worker_has_the_processor(make_house: MakeHouse) -> None:
    house = make_house(limit=7)
    house.make("back", 20)
    house.worker("w", ["live"])
    house.clock.now += AFTER_S
    for _ in range(3):
        house.relay.sweep()
    assert house.parked() == [("back", "events", "unknown", 20)]
    house.worker("w2", ["back"])
    for _ in range(4):
        house.relay.sweep()
    assert house.parked() == []
    assert house.hints() == {"events.overdue": 20}
    assert one(house.engine, "SELECT count(*) FROM parked") == 0


def test_jobs_of_a_queue_that_nobody_consumes_are_parked_until_somebody_does(
    make_house: MakeHouse,
) -> None:
    house = make_house()
    house.worker("w", ["crm"], ["events", "replay"])
    execute(house.engine, "UPDATE processors SET queue = 'crm'")
    house.make("crm", 4, queue="crm")
    house.clock.now += AFTER_S
    house.relay.sweep()
    assert house.parked() == [("crm", "crm", "unconsumed", 4)]
    house.worker("w2", ["crm"], ["crm"])
    house.relay.sweep()
    assert house.parked() == []
    assert house.hints() == {"crm.overdue": 4}


def test_jobs_follow_their_processor_to_its_present_queue(make_house: MakeHouse) -> None:
    house = make_house()
    house.make("crm", 5, queue="old")
    house.worker("w", ["crm"], ["new", "events", "replay"])
    house.relay.sweep()
    assert house.hints() == {"new.overdue": 5}
    assert house.parked() == []


def test_a_line_is_woken_through_the_present_queue_of_its_processor(
    make_house: MakeHouse,
) -> None:
    house = make_house()
    house.make("crm", 5, queue="old")
    house.enter("crm")
    house.worker("w", ["crm"], ["new", "events", "replay"])
    house.relay.sweep()
    assert house.hints() == {"new.overdue": AT_ONCE}


def test_during_a_deploy_a_line_is_woken_through_the_queue_that_a_worker_takes(
    make_house: MakeHouse,
) -> None:
    house = make_house()
    house.make("crm", 5, queue="old")
    house.enter("crm")
    house.worker("w", ["crm"], ["old"])
    with house.engine.begin() as connection:
        processors.register(connection, [registered("crm", "new")])
    house.relay.sweep()
    assert house.hints() == {"old.overdue": AT_ONCE}


def test_a_line_of_replays_that_nobody_takes_is_woken_through_the_queue_of_its_processor(
    make_house: MakeHouse,
) -> None:
    house = make_house()
    house.make("crm", 5, queue="replay")
    house.enter("crm")
    house.worker("w", ["crm"], ["crm"])
    house.relay.sweep()
    assert house.hints() == {"crm.overdue": AT_ONCE}


def test_a_line_that_no_worker_takes_is_not_woken_but_parked_and_keeps_its_places(
    make_house: MakeHouse, engine: Engine
) -> None:
    house = make_house(limit=7)
    house.make("removed", 20)
    house.enter("removed")
    line = rows(engine, _LINE)
    house.worker("w", ["live"])
    house.relay.sweep()
    assert house.parked() == []
    house.clock.now += AFTER_S
    for _ in range(3):
        house.relay.sweep()
    assert house.parked() == [("removed", "events", "unknown", 20)]
    before = rows(engine, "SELECT id, xmin::text FROM jobs ORDER BY id")
    house.relay.sweep()
    assert rows(engine, "SELECT id, xmin::text FROM jobs ORDER BY id") == before
    assert house.hints() == {}
    assert house.relay.look_at is None
    house.worker("w2", ["removed"])
    for _ in range(4):
        house.relay.sweep()
    assert house.parked() == []
    assert {id_ for _, _, ids in house.sent.messages for id_ in ids} == {row["job"] for row in line}
    assert rows(engine, _LINE) == line


def test_a_line_of_which_no_worker_takes_the_queue_is_parked_and_its_replays_go_on(
    make_house: MakeHouse,
) -> None:
    house = make_house()
    house.make("crm", 3, queue="crm")
    house.make("crm", 2, queue="replay", first=50)
    house.enter("crm")
    house.worker("w", ["crm"], ["events", "replay"])
    execute(house.engine, "UPDATE processors SET queue = 'crm'")
    house.clock.now += AFTER_S
    house.relay.sweep()
    assert house.parked() == [("crm", "crm", "unconsumed", 3)]
    assert house.hints() == {"replay.overdue": 2}


def test_a_line_that_is_paused_is_neither_woken_nor_parked_while_a_worker_has_it(
    make_house: MakeHouse,
) -> None:
    house = make_house()
    house.worker("w", ["a"])
    house.make("a", 4)
    house.enter("a")
    with house.engine.begin() as connection:
        processors.pause(connection, "a", by="sara", reason=None)
    house.clock.now += AFTER_S
    house.relay.sweep()
    assert (house.parked(), house.hints()) == ([], {})


def test_parked_jobs_too_follow_it(make_house: MakeHouse) -> None:
    house = make_house()
    house.make("crm", 5, queue="old")
    house.worker("w", ["live"])
    house.clock.now += AFTER_S
    house.relay.sweep()
    assert house.parked() == [("crm", "old", "unknown", 5)]
    house.worker("w2", ["crm"], ["new"])
    house.relay.sweep()
    assert house.hints() == {"new.overdue": 5}


def test_replays_stay_in_their_lane(make_house: MakeHouse, engine: Engine) -> None:
    house = make_house()
    house.make("crm", 5, queue="replay")
    house.worker("w", ["crm"], ["crm", "replay"])
    house.relay.sweep()
    assert house.hints() == {"replay.overdue": 5}


def test_while_no_worker_is_alive_nothing_is_parked_nor_taken_up(make_house: MakeHouse) -> None:
    house = make_house()
    house.make("removed", 3)
    worker = house.worker("w", ["live"])
    house.sweep_late()
    assert house.aside() == 3
    house.make("live", 2, first=100)
    house.leave(worker)
    house.sweep_late(3)
    assert house.parked() == [("removed", "events", "unknown", 3)]


def test_a_deploy_parks_nothing(make_house: MakeHouse) -> None:
    """Its workers end and come back one by one, within the time that is left for that."""
    house = make_house()
    first, second = house.worker("w1", ["a"], ["events"]), house.worker("w2", ["b"], ["crm"])
    house.make("a", 2)
    house.make("b", 2, queue="crm", first=100)
    execute(house.engine, "UPDATE jobs SET next_attempt_at = now(), hinted_until = NULL")
    house.clock.now += AFTER_S
    house.relay.sweep()
    house.leave(second)
    house.clock.now += AFTER_S - 1
    house.relay.sweep()
    house.leave(first)
    house.clock.now += AFTER_S
    house.relay.sweep()
    house.worker("w3", ["a"], ["events"])
    house.clock.now += 1
    house.relay.sweep()
    assert house.aside() == 0


def test_a_worker_that_was_killed_no_longer_counts(make_house: MakeHouse) -> None:
    house = make_house()
    house.worker("killed", ["a"])
    house.worker("w", ["live"])
    house.make("a", 2)
    execute(
        house.engine,
        "UPDATE processes SET seen_at = now() - CAST(:age AS interval) WHERE id = 'killed'",
        age=ALIVE_FOR,
    )
    house.sweep_late()
    assert house.parked() == [("a", "events", "unknown", 2)]


def test_a_worker_of_a_release_before_does_not_say_so_nothing_is_parked(
    make_house: MakeHouse,
) -> None:
    house = make_house()
    house.worker("w", ["live"])
    execute(house.engine, "UPDATE processes SET queues = NULL, processors = NULL")
    house.make("a", 2)
    house.sweep_late(2)
    assert house.aside() == 0


def test_paused_and_unserved_it_comes_back_when_neither_holds(make_house: MakeHouse) -> None:
    house = make_house()
    house.worker("w", ["live"])
    with house.engine.begin() as connection:
        processors.register(connection, [registered("a", "events")])
    house.make("a", 4)
    house.sweep_late()
    assert house.parked() == [("a", "events", "unknown", 4)]
    with house.engine.begin() as connection:
        processors.pause(connection, "a", by="sara", reason=None)
    house.worker("w2", ["a"])
    house.relay.sweep()
    assert house.parked() == [("a", "events", "paused", 4)]
    with house.engine.begin() as connection:
        processors.resume(connection, "a")
    house.relay.sweep()
    assert house.parked() == []


def test_resumed_but_unserved_it_stays_parked_and_is_not_written(make_house: MakeHouse) -> None:
    house = make_house()
    house.worker("w", ["live"])
    with house.engine.begin() as connection:
        processors.register(connection, [registered("a", "events")])
        processors.pause(connection, "a", by="sara", reason=None)
    house.make("a", 4)
    house.sweep_late()
    with house.engine.begin() as connection:
        processors.resume(connection, "a")
    for _ in range(4):
        house.sweep_late()
    assert house.parked() == [("a", "events", "unknown", 4)]
    before = rows(house.engine, "SELECT id, xmin::text FROM jobs ORDER BY id")
    house.sweep_late(3)
    assert rows(house.engine, "SELECT id, xmin::text FROM jobs ORDER BY id") == before


def test_since_when_is_kept(make_house: MakeHouse) -> None:
    house = make_house()
    house.make("removed", 3)
    house.worker("w", ["live"])
    house.sweep_late()
    with house.engine.connect() as connection:
        (first,) = jobs.parked(connection)
    house.make("removed", 3, first=50)
    house.sweep_late()
    with house.engine.connect() as connection:
        (found,) = jobs.parked(connection)
    assert isinstance(found, ParkedJobs)
    assert found.jobs == 6
    assert found.since == first.since is not None
