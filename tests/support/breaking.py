"""A processor with a breaker, its worker and a relay, driven by hand."""

from collections.abc import Callable, Sequence

from sqlalchemy import Engine

from ingest import settings
from ingest.store.pipeline import breakers, jobs, processors
from ingest.store.pipeline.breakers import BreakerRecord
from ingest.store.pipeline.jobs import ParkedJobs
from tests.integration.conftest import Sent, Worker
from tests.support.deliver import deliver, order
from tests.support.rows import execute, one, rows
from workers import wiring
from workers.relay.sweep import Relay

NAME = "crm"


class Target:
    """What the processor calls."""

    def __init__(self) -> None:
        self.error: BaseException | None = ConnectionError("refused")
        """What a call meets; None: an answer."""
        self.calls: list[int] = []
        """The orders that it was called for."""

    def call(self, number: int) -> None:
        """Call it for an order."""
        self.calls.append(number)
        if self.error is not None:
            raise self.error


class House:
    """One processor, one worker, one relay."""

    def __init__(self, engine: Engine, database_url: str, worker: Worker) -> None:
        self.engine = engine
        self.database_url = database_url
        self.worker = worker
        self.register()
        self.sent, self.relay = self.make_relay()

    def make_relay(self) -> tuple[Sent, Relay]:
        """A relay, and what it sends."""
        sent = Sent()
        return sent, Relay(self.engine, sent, settings.load(redispatch_after_s=1000))

    def register(self, worker: Worker | None = None) -> None:
        """As a worker does when it starts."""
        with self.engine.begin() as connection:
            wiring.register((worker or self.worker).registry, connection)

    def deliver(self, count: int, *, first: int = 0) -> None:
        """Have the worker admit events and run what it claims."""
        made = [order(n) for n in range(first, first + count)]
        self.worker.process(deliver(self.database_url, made))

    def run(self, ids: Sequence[int] = ()) -> None:
        """Have the worker run jobs: those named, or all that wait."""
        self.worker.process(jobs=ids or self.waiting())

    def waiting(self) -> list[int]:
        """The jobs that wait, made due."""
        execute(
            self.engine,
            "UPDATE jobs SET next_attempt_at = now() WHERE next_attempt_at > now()"
            " AND next_attempt_at < 'infinity'",
        )
        wait = "SELECT id FROM jobs WHERE state IN ('pending', 'retrying') ORDER BY id"
        return [row["id"] for row in rows(self.engine, wait)]

    def sweep(self, *, probe: bool = False) -> list[int]:
        """Sweep as if hints had been lost; return the jobs that the relay dispatched. With `probe`,
        the next one is due."""
        self.waiting()
        lost = "UPDATE jobs SET hinted_until = NULL WHERE hinted_until < 'infinity'"
        execute(self.engine, lost)
        if probe:
            execute(self.engine, "UPDATE breakers SET probe_at = now() WHERE probe_at > now()")
        self.sent.messages.clear()
        self.relay.sweep()
        return [job for _, _, ids in self.sent.messages for job in ids]

    def probe(self) -> list[int]:
        """Let the next probe be due, and run what the relay dispatches; return it."""
        dispatched = self.sweep(probe=True)
        self.worker.process(jobs=dispatched)
        return dispatched

    def drain(self, sweeps: int = 20) -> None:
        """Sweep and run until nothing waits."""
        for _ in range(sweeps):
            if not one(self.engine, "SELECT count(*) FROM jobs WHERE state <> 'succeeded'"):
                return
            self.worker.process(jobs=self.sweep())
        raise AssertionError("never drained")

    @property
    def breaker(self) -> BreakerRecord:
        """As it is now."""
        with self.engine.connect() as connection:
            return breakers.records(connection)[NAME]

    def is_open(self) -> bool:
        """Whether its breaker is open."""
        return self.breaker.opened_at is not None

    def parked(self) -> list[ParkedJobs]:
        """What is parked."""
        with self.engine.connect() as connection:
            return jobs.parked(connection)

    def spent(self) -> int:
        """How many attempts count."""
        spent = "SELECT count(*) FROM attempts WHERE outcome IN ('failed', 'timed_out')"
        return int(one(self.engine, spent))

    def states(self) -> dict[str, int]:
        """How many jobs are in each state."""
        by_state = "SELECT state, count(*) AS jobs FROM jobs GROUP BY state"
        return {row["state"]: row["jobs"] for row in rows(self.engine, by_state)}

    def pause(self) -> None:
        """Pause the processor."""
        with self.engine.begin() as connection:
            processors.pause(connection, NAME, by="sara", reason=None)

    def resume(self) -> None:
        """Resume it."""
        with self.engine.begin() as connection:
            processors.resume(connection, NAME)


MakeHouse = Callable[..., House]
