"""Order per key with several workers at once, which fail, are told late, and are disturbed."""

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, Queue
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text

from ingest.settings import load
from ingest.store.pipeline import jobs
from tests.integration.conftest import Sent, Worker
from tests.support.deliver import body, deliver
from tests.support.rows import execute, one, rows
from tests.support.waiting import until
from workers import Event, processor
from workers.relay.mending import OrderMending
from workers.relay.sweep import Relay
from workers.wiring import register

MakeWorker = Callable[..., Worker]
Message = tuple[list[UUID], list[int]]
KEYS, STEPS, WORKERS = 5, 24, 4
WAITING = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)
PATIENCE_S = 300.0


class Together:
    """Which keys are at work, across threads."""

    def __init__(self) -> None:
        self._keys: set[int] = set()
        self._lock = threading.Lock()
        self.most = 0
        self.two_at_once: list[int] = []

    @contextmanager
    def working(self, key: int) -> Iterator[None]:
        with self._lock:
            if key in self._keys:
                self.two_at_once.append(key)
            self._keys.add(key)
            self.most = max(self.most, len(self._keys))
        try:
            yield
        finally:
            with self._lock:
                self._keys.discard(key)


class Crowd:
    """Workers in threads, and a relay that dispatches to them."""

    def __init__(self, engine: Engine, workers: list[Worker]) -> None:
        self.messages: Queue[Message] = (
            Queue()
        )  # SimpleQueue's get may outlast its time-out for ever
        self.errors: list[BaseException] = []
        self._stop = threading.Event()
        self._relay = Relay(engine, _To(self.messages), load(redispatch_after_s=1))
        self._threads = [threading.Thread(target=self._work, args=(each,)) for each in workers]
        self._threads.append(threading.Thread(target=self._sweep))

    def __enter__(self) -> "Crowd":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
        self.check()
        assert not [thread for thread in self._threads if thread.is_alive()]

    def check(self) -> None:
        """Raise what a thread has raised."""
        if self.errors:
            raise self.errors[0]

    def _work(self, worker: Worker) -> None:
        while not self._stop.is_set():
            try:
                worker.process(*self.messages.get(timeout=0.05))
            except Empty:
                continue
            except BaseException as error:  # told to the test
                self.errors.append(error)
            for _, deliveries, ids in worker.sent.messages:  # what it handed on
                self.messages.put((deliveries, ids))
            worker.sent.messages.clear()

    def _sweep(self) -> None:
        while not self._stop.wait(0.05):
            try:
                self._relay.sweep()
            except BaseException as error:  # told to the test
                self.errors.append(error)


class _To(Sent):
    def __init__(self, messages: Queue[Message]) -> None:
        super().__init__()
        self._messages = messages

    def dispatch(self, queue: str, **ids: Any) -> None:
        self._messages.put((list(ids.get("deliveries", ())), list(ids.get("jobs", ()))))


def _bodies() -> list[bytes]:
    return [
        body("order.status_changed", {"order_id": key, "step": step}, event_id=f"{key}-{step}")
        for step in range(STEPS)
        for key in range(KEYS)
    ]


@pytest.fixture
def together(engine: Engine) -> Together:
    """What the processors of a test note."""
    execute(engine, "CREATE TABLE ran (place serial, key int, step int)")
    return Together()


def _declare(together: Together, *, on_dead: str = "wait", fails: float = 0.0) -> None:
    chance = random.Random(7)

    @processor(
        "order.*", name="shipping", ordered_by="order_id", max_attempts=1_000, on_dead=on_dead
    )
    def work(event: Event, db: Connection) -> None:
        with together.working(event.data["order_id"]):
            db.execute(
                text("INSERT INTO ran (key, step) VALUES (:order_id, :step)"), dict(event.data)
            )
            if chance.random() < fails:
                raise ConnectionError


def _ran(engine: Engine, key: int) -> list[int]:
    found = rows(engine, "SELECT step FROM ran WHERE key = :key ORDER BY place", key=key)
    return [row["step"] for row in found]


def _unfinished(engine: Engine) -> int:
    return int(
        one(
            engine,
            "SELECT (SELECT count(*) FROM unadmitted)"
            " + (SELECT count(*) FROM jobs WHERE state <> 'succeeded' AND discarded_at IS NULL)",
        )
    )


def test_workers_that_fail_and_admit_side_by_side_keep_the_order(
    engine: Engine, database_url: str, make_worker: MakeWorker, together: Together
) -> None:
    _declare(together, fails=0.2)
    arrived = deliver(database_url, _bodies())
    workers = [make_worker(name=f"test:{n}") for n in range(WORKERS)]
    with Crowd(engine, workers) as crowd:
        for start in range(0, len(arrived), 7):
            crowd.messages.put((arrived[start : start + 7], []))

        def are_done() -> bool:
            crowd.check()
            return _unfinished(engine) == 0

        until(are_done, what="all have succeeded", timeout_s=PATIENCE_S)
    assert together.two_at_once == []
    for key in range(KEYS):
        assert _ran(engine, key) == list(range(STEPS))
    assert one(engine, "SELECT count(*) FROM ordered_jobs") == 0
    assert one(engine, "SELECT count(*) FROM keys_in_work") == 0


def test_jobs_that_are_discarded_and_run_early_meanwhile_leave_none_behind(
    engine: Engine, database_url: str, make_worker: MakeWorker, together: Together
) -> None:
    """Bulk actions lock jobs of a key in another order than workers do."""
    _declare(together, fails=0.1)
    arrived = deliver(database_url, _bodies())
    workers = [make_worker(name=f"test:{n}") for n in range(WORKERS)]
    chance = random.Random(11)
    with Crowd(engine, workers) as crowd:
        for start in range(0, len(arrived), 7):
            crowd.messages.put((arrived[start : start + 7], []))

        def are_done() -> bool:
            """Disturb those that wait, until there are none."""
            crowd.check()
            waiting = rows(engine, "SELECT id FROM jobs WHERE state IN ('pending', 'retrying')")
            some = [row["id"] for row in waiting if chance.random() < 0.1]
            with engine.begin() as db:
                jobs.run_now(db, some)
            with engine.begin() as db:
                jobs.discard(db, some[:2], replay=None, why="no")
            return _unfinished(engine) == 0

        until(are_done, what="all have succeeded or are discarded", timeout_s=PATIENCE_S)
    assert together.two_at_once == []
    for key in range(KEYS):
        assert _ran(engine, key) == sorted(_ran(engine, key))
    assert one(engine, "SELECT count(*) FROM ordered_jobs") == 0
    assert one(engine, "SELECT count(*) FROM keys_in_work") == 0


def test_letting_go_of_an_order_waits_for_nobody_who_holds_a_job(
    engine: Engine, database_url: str, make_worker: MakeWorker, declared: list[Any]
) -> None:
    """A bulk action locks a job, and then its place."""
    _declare(Together())
    no_time = make_worker(clock=itertools.count(step=3_600).__next__)
    no_time.process(deliver(database_url, _bodies()))
    with engine.begin() as db:
        register(no_time.registry, db)
    declared.clear()

    @processor("order.*", name="shipping")
    def work(event: Event, db: Connection) -> None: ...

    with engine.begin() as db:
        register(make_worker(name="test:2").registry, db)
    held = [
        row["id"]
        for row in rows(
            engine, "SELECT id FROM jobs WHERE next_attempt_at = 'infinity' ORDER BY id LIMIT 2"
        )
    ]
    sweeps = threading.Thread(target=OrderMending(engine).sweep)
    with engine.begin() as db:
        db.execute(text("SELECT FROM ingest.jobs WHERE id = ANY(:ids) FOR UPDATE"), {"ids": held})
        sweeps.start()
        until(
            lambda: not sweeps.is_alive() or one(engine, WAITING) > 0,
            what="the sweep ends, or waits for a lock",
        )
        jobs.discard(db, held, replay=None, why="no")
    sweeps.join()
    OrderMending(engine).sweep()
    assert one(engine, "SELECT count(*) FROM ordered_jobs") == 0
    assert one(engine, "SELECT count(*) FROM jobs WHERE next_attempt_at = 'infinity'") == 0
    assert one(engine, "SELECT count(*) FROM jobs WHERE discarded_at IS NOT NULL") == len(held)
