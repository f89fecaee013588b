"""A breaker under any interleaving of claims, failures, probes, crashes, pauses and operators,
against a model of a few lines."""

import random
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine, text

from ingest import settings as ingest_settings
from ingest.store.pipeline import admission, breakers, jobs, processors
from ingest.store.pipeline.breaker_state import Sign
from ingest.store.pipeline.breakers import Declared
from ingest.store.pipeline.jobs import Failure, Lease, NewJobs, Outcome
from ingest.store.pipeline.processors import Registered
from tests.integration.conftest import Sent
from tests.support.deliver import deliver, order
from tests.support.rows import execute, one, rows
from workers import breaker as judging
from workers.recovery import rescue
from workers.relay.sweep import Relay
from workers.retry import RetryPolicy

NAME = "crm"
AFTER = 3
BREAKER = Declared(processor=NAME, watches="x", opens_after=AFTER, probe_every_s=3600)
_TABLES = ("attempts", "ungrouped", "jobs", "events", "unadmitted", "deliveries", "parked")
choices = st.integers(0, 2**16 - 1)


class BreakerMachine(RuleBasedStateMachine):
    """One step at a time, each committed."""

    engine: Engine
    url: str

    def __init__(self) -> None:
        super().__init__()
        for table in (*_TABLES, "breakers", "processors"):
            execute(self.engine, f"DELETE FROM {table}")
        registered = Registered(
            name=NAME,
            types=("order.created",),
            queue="events",
            batch=False,
            threads=1,
            max_attempts=1000,
            timeout_s=30,
        )
        with self.engine.begin() as db:
            processors.register(db, [registered])
        self.sent = Sent()
        self.relay = Relay(self.engine, self.sent, ingest_settings.load(redispatch_after_s=1000))
        self.made = 0
        self.waiting: set[int] = set()
        self.held: dict[int, Lease] = {}
        self.failures = 0
        self.is_open = False
        self.probe: int | None = None
        """While it has not ended; in `waiting` until it is claimed."""
        self.probe_is_held = False
        self.paused = False
        self.spent = 0
        self.register()

    @rule()
    def register(self) -> None:
        """A worker starts."""
        with self.engine.begin() as db:
            breakers.register(db, [BREAKER], [])

    @rule(count=st.integers(1, 4))
    def make(self, count: int) -> None:
        made = [order(self.made + n) for n in range(count)]
        self.made += count
        with self.engine.begin() as db:
            admitted = admission.admit(
                db,
                deliver(self.url, made),
                [NewJobs(type="order.created", processor=NAME, queue="events", max_attempts=1000)],
                replay_queue="replay",
                redispatch_after_s=0,
            )
        self.waiting |= {job.id for job in admitted.jobs}

    @precondition(lambda self: self.waiting)
    @rule(choice=choices)
    def claim(self, choice: int) -> None:
        """A worker claims some of all jobs, whatever the relay dispatched."""
        ids = [job for n, job in enumerate(sorted(self.waiting)) if choice >> (n % 16) & 1]
        with self.engine.begin() as db:
            claimed = jobs.claim(db, ids, worker="w", lease_s=3600, max_attempts=1000)
        allowed = set(ids)
        if self.is_open:
            allowed &= {self.probe} if self.probe is not None else set()
        if self.paused:
            allowed = set()
        assert {job.id for job in claimed} == allowed
        self.waiting -= allowed
        self.held |= {job.id: Lease(job.id, job.attempt) for job in claimed}
        self.probe_is_held = self.probe_is_held or self.probe in allowed

    @precondition(lambda self: self.held)
    @rule(choice=choices, sign=st.sampled_from([Sign.DOWN, Sign.DOWN, Sign.UP, Sign.OVER, None]))
    def fail(self, choice: int, sign: Sign | None) -> None:
        """Some attempts of a batch fail, all in one way."""
        ended = [job for n, job in enumerate(sorted(self.held)) if choice >> (n % 16) & 1]
        failures = [
            Failure(
                id=job,
                attempt=self.held[job].attempt,
                outcome=Outcome.FAILED,
                retry_in_s=0,
                sign=sign,
                error_type="ConnectionError",
            )
            for job in ended
        ]
        with self.engine.begin() as db:
            recorded = breakers.record(db, BREAKER, failures)
            kept = [
                judging.not_counted(failure) if failure.id in recorded.uncounted else failure
                for failure in failures
            ]
            assert jobs.fail(db, kept) == set(ended)
        for job in ended:
            self.note(job, sign)
            del self.held[job]
            self.waiting.add(job)

    def note(self, job: int, sign: Sign | None) -> None:
        """What an attempt that failed does to the model."""
        is_probe = self.probe_is_held and job == self.probe
        was_down = sign in (Sign.DOWN, Sign.OVER)
        counts = not (self.is_open and was_down and not is_probe)
        self.spent += counts
        if not counts:
            return
        if is_probe:
            self.probe, self.probe_is_held = None, False
        if sign is Sign.UP and (is_probe or not self.is_open):
            self.close_model()
        if sign is Sign.DOWN:
            self.failures += 1
            self.is_open = self.is_open or self.failures >= AFTER

    def close_model(self) -> None:
        self.failures, self.is_open, self.probe, self.probe_is_held = 0, False, None, False

    @precondition(lambda self: self.held)
    @rule(choice=choices)
    def succeed(self, choice: int) -> None:
        """Some attempts succeed."""
        ended = [job for n, job in enumerate(sorted(self.held)) if choice >> (n % 16) & 1]
        if not ended:
            return
        with self.engine.begin() as db:
            breakers.answered(db, NAME, ended)
            jobs.finish(db, [self.held[job] for job in ended])
        if not self.is_open or (self.probe_is_held and self.probe in ended):
            self.close_model()
        for job in ended:
            del self.held[job]

    @precondition(lambda self: self.held)
    @rule(choice=choices)
    def lose(self, choice: int) -> None:
        """A worker is killed with what it holds."""
        lost = [job for n, job in enumerate(sorted(self.held)) if choice >> (n % 16) & 1]
        execute(self.engine, "UPDATE jobs SET lease_until = now() WHERE id = ANY(:ids)", ids=lost)
        before = self.counted()
        rules = RetryPolicy(base_s=0.0, cap_s=0.0)
        rescue.recover_expired(self.engine, rules, limit=100, random=random.uniform)
        self.spent += self.counted() - before
        for job in lost:
            del self.held[job]
            self.waiting.add(job)

    @rule(due=st.booleans())
    def sweep(self, due: bool) -> None:
        """The relay looks, the next probe being due or not."""
        if due:
            execute(self.engine, "UPDATE breakers SET probe_at = now() WHERE probe_at > now()")
        execute(self.engine, "UPDATE jobs SET hinted_until = NULL WHERE hinted_until < 'infinity'")
        self.sent.messages.clear()
        self.relay.sweep()
        dispatched = {job for _, _, ids in self.sent.messages for job in ids}
        if not self.is_open or self.paused:
            assert dispatched == (set() if self.paused else self.waiting)
            return
        is_under_way = self.probe is not None and (
            self.probe in self.waiting or (self.probe_is_held and self.probe in self.held)
        )
        if due and not is_under_way and self.waiting:
            (self.probe,) = dispatched
            self.probe_is_held = False
            assert self.probe in self.waiting
        else:
            assert dispatched == ({self.probe} & self.waiting if is_under_way else set())

    @rule()
    def pause(self) -> None:
        with self.engine.begin() as db:
            processors.pause(db, NAME, by="sara", reason=None)
        self.paused = True

    @precondition(lambda self: self.paused)
    @rule()
    def resume(self) -> None:
        with self.engine.begin() as db:
            processors.resume(db, NAME)
        self.paused = False

    @rule()
    def close(self) -> None:
        """An operator closes it."""
        with self.engine.begin() as db:
            assert breakers.close(db, NAME, by="sara") == self.is_open
        if self.is_open:
            self.close_model()

    def counted(self) -> int:
        outcomes = "('failed', 'lost')"
        return int(one(self.engine, f"SELECT count(*) FROM attempts WHERE outcome IN {outcomes}"))

    @invariant()
    def agrees(self) -> None:
        (row,) = rows(
            self.engine, "SELECT failures, opened_at IS NOT NULL AS is_open FROM breakers"
        )
        assert (row["failures"], row["is_open"]) == (self.failures, self.is_open)
        assert self.counted() == self.spent
        assert one(self.engine, "SELECT count(*) FROM jobs WHERE state = 'dead'") == 0

    def teardown(self) -> None:
        """With a target that answers it closes by itself, and everything runs."""
        if self.paused:
            self.resume()
        self.succeed(2**16 - 1) if self.held else None
        for _ in range(10):
            self.sweep(due=True)
            if self.waiting:
                self.claim(2**16 - 1)
            if self.held:
                self.succeed(2**16 - 1)
        assert not self.waiting
        assert not (self.is_open and self.made and self.spent_by_probe())

    def spent_by_probe(self) -> bool:
        """Whether a job was there to probe with."""
        with self.engine.connect() as db:
            waiting = db.execute(text("SELECT count(*) FROM jobs WHERE state <> 'succeeded'"))
            return bool(waiting.scalar_one())


def test_no_interleaving_claims_more_than_the_probe_or_holds_a_healthy_target_for_ever(
    engine: Engine, database_url: str
) -> None:
    class Machine(BreakerMachine):
        pass

    Machine.engine, Machine.url = engine, database_url
    options: Any = settings(
        max_examples=40,
        stateful_step_count=40,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Machine, settings=options)
