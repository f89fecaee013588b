"""A breaker with several workers and relays at once, while its target goes and comes back."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine

from ingest.store.pipeline import breakers
from tests.integration.conftest import Worker
from tests.integration.test_order_races import Crowd
from tests.support.breaking import NAME, House
from tests.support.deliver import deliver, order
from tests.support.rows import one
from tests.support.waiting import until
from workers import Breaker, Event, processor

MakeWorker = Callable[..., Worker]
AFTER, WORKERS, EVENTS, OUTAGES = 5, 4, 120, 3
_BESIDE = (
    "SELECT count(*) FROM jobs WHERE state = 'running'"
    " AND id IS DISTINCT FROM (SELECT probe_job FROM breakers)"
)
_SPENT = "SELECT count(*) FROM attempts WHERE outcome = 'failed'"


class Target:
    """What the workers call; it counts how many call it at once."""

    def __init__(self) -> None:
        self.is_up = True
        self.failed = 0
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()

    def call(self) -> None:
        with self._called():
            if not self.is_up:
                raise ConnectionError("refused")

    @contextmanager
    def _called(self) -> Iterator[None]:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        except ConnectionError:
            with self._lock:
                self.failed += 1
            raise
        finally:
            with self._lock:
                self._at_once -= 1


def test_workers_that_fail_at_once_spend_no_more_than_one_that_fails(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    target = Target()

    @processor(
        "order.created",
        name=NAME,
        max_attempts=3,
        threads=4,
        breaker=Breaker(after=AFTER, probe_every_s=0.05),
    )
    def crm(event: Event, db: Connection) -> None:
        target.call()

    workers = [make_worker(name=f"w:{number}") for number in range(WORKERS)]
    house = House(engine, database_url, workers[0])
    for number in range(OUTAGES):
        with Crowd(engine, workers) as crowd:
            spent = one(engine, _SPENT)
            outage(house, crowd, target, number)
        assert not house.is_open()
        assert one(engine, _SPENT) - spent >= AFTER + 9
    kept = one(engine, "SELECT count(*) FROM attempts WHERE error_type = 'ConnectionError'")
    assert target.failed == kept
    assert one(engine, "SELECT max(failures) FROM jobs") <= 2


def outage(house: House, crowd: Crowd, target: Target, number: int) -> None:
    """Let the target go and come back, with events of its own."""
    target.is_up = False
    for first in range(EVENTS * number, EVENTS * (number + 1), 20):
        made = [order(first + n) for n in range(20)]
        crowd.messages.put((deliver(house.database_url, made), []))
    until(lambda: house.breaker.probes >= 5, what="it was probed five times")
    until(lambda: one(house.engine, _BESIDE) == 0, what="what was in work has ended")
    target.most_at_once = 0
    seen = house.breaker.probes
    until(lambda: house.breaker.probes >= seen + 5, what="it was probed again")
    assert target.most_at_once == 1
    target.is_up = True
    until(lambda: house.states() == {"succeeded": EVENTS * (number + 1)}, what="all ran")


def test_operators_and_workers_that_register_meanwhile_leave_nothing_waiting(
    engine: Engine, database_url: str, make_worker: MakeWorker
) -> None:
    target = Target()
    target.is_up = False

    @processor(
        "order.created",
        name=NAME,
        max_attempts=1000,
        breaker=Breaker(after=2, probe_every_s=0.05),
    )
    def crm(event: Event, db: Connection) -> None:
        target.call()

    workers = [make_worker(name=f"w:{number}") for number in range(WORKERS)]
    house = House(engine, database_url, workers[0])
    with Crowd(engine, workers) as crowd:
        crowd.messages.put((deliver(database_url, [order(n) for n in range(60)]), []))
        for _ in range(5):
            until(house.is_open, what="it is open")
            house.register()
            with engine.begin() as connection:
                assert breakers.close(connection, NAME, by="sara") in (True, False)
            house.pause()
            house.resume()
        target.is_up = True
        until(lambda: house.states() == {"succeeded": 60}, what="all ran")
    assert not house.is_open()
