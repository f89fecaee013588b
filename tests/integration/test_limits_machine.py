"""Limits beside a model: workers, crashes, retries, replays, pauses and new limits, in any order.

Neither a concurrency nor a rate is ever exceeded, what is allowed is started, no key is passed
over, and in the end all have run.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine, text

from ingest.rates import Rate
from ingest.store.pipeline import admission, jobs, limits, processors, pulling
from ingest.store.pipeline.jobs import Failure, Lease, NewJobs, Outcome
from ingest.store.pipeline.limits import Bounds, DeclaredLimits
from ingest.store.pipeline.processors import Registered
from ingest.store.pipeline.pulling import Claiming
from tests.support.deliver import deliver, order
from tests.support.effort import examples
from tests.support.rows import one, rows

_TABLES = (
    *("attempts", "jobs", "limited_jobs", "limited_keys", "limits", "unhandled", "duplicates"),
    *("events", "unadmitted", "deliveries", "processors"),
)
NAME = "calling"
KEYS = {name: UUID(int=100 + number) for number, name in enumerate("abc")}
DECLARED = DeclaredLimits(processor=NAME, limit_by="key", bounds=Bounds(concurrency=3))
CLAIMING = Claiming(worker="w", lease_s=60, max_attempts=9)
_FIRST_RECEIPT = 1_760_000_000.0
_LATER_S = 3_600.0
MOST_PASSED = 2
"""Starts of one key while another is ready: one whose turn was the same, and one before it."""

choices = st.integers(0, 2**16 - 1)
some = st.none() | st.integers(1, 3)
Window = list[float]


def chosen(items: list[Any], choice: int) -> list[Any]:
    """The items whose bit is set."""
    return [item for number, item in enumerate(items) if choice >> (number % 16) & 1]


@dataclass
class Job:
    """What is known of a job."""

    id: int
    key: str
    state: str = "pending"
    """As the column, or `discarded`."""
    is_due: bool = True
    is_in_line: bool = False
    attempt: int = 0

    @property
    def waits(self) -> bool:
        return self.state in ("pending", "retrying")


class LimitsMachine(RuleBasedStateMachine):
    """One step at a time, each committed."""

    engine: Engine
    url: str

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[int, Job] = {}
        self.held: dict[int, Lease] = {}
        self.received = 0
        self.passed_s = 0.0
        self.is_paused = False
        self.bounds = DECLARED.bounds
        self.starts: Window = []
        """When jobs started, since the rate is what it is; and those of each key."""
        self.key_starts: dict[str, Window] = defaultdict(list)
        self.passed_over: dict[str, Counter[str]] = {}
        """Of each key that has been ready since: what others have started."""
        with self.engine.begin() as db:
            for table in _TABLES:
                db.execute(text(f"DELETE FROM {table}"))
            registered = Registered(
                name=NAME,
                types=("order.created",),
                queue="live",
                batch=False,
                threads=1,
                max_attempts=9,
                timeout_s=30,
            )
            processors.register(db, [registered])
            limits.register(db, [DECLARED], [])

    @initialize(keys=st.lists(st.sampled_from(sorted(KEYS)), min_size=3, max_size=9))
    def begin(self, keys: list[str]) -> None:
        self.receive(keys)
        self.enter(2**16 - 1)

    @rule(keys=st.lists(st.sampled_from(sorted(KEYS)), min_size=1, max_size=4))
    def receive(self, keys: list[str]) -> None:
        bodies = [order(self.received + number, key=key) for number, key in enumerate(keys)]
        self.received += len(keys)
        arrived = deliver(self.url, bodies, now=_FIRST_RECEIPT + self.received)
        new = NewJobs(type="order.created", processor=NAME, queue="live", max_attempts=9)
        with self.engine.begin() as db:
            admitted = admission.admit(
                db, arrived, [new], replay_queue="replay", redispatch_after_s=_LATER_S
            )
        ids = [ref.id for ref in admitted.jobs]
        made = rows(self.engine, "SELECT id, event FROM jobs WHERE id = ANY(:i)", i=ids)
        key_of = dict(zip(arrived, keys, strict=True))
        for row in made:
            self.jobs[row["id"]] = Job(id=row["id"], key=key_of[row["event"]])

    @rule(choice=choices)
    def enter(self, choice: int) -> None:
        """A worker gets ids, of jobs in any state."""
        ids = chosen(sorted(self.jobs), choice)
        with self.engine.begin() as db:
            pulling.enter(db, DECLARED, [(id_, KEYS[self.jobs[id_].key]) for id_ in ids])
        for job in (self.jobs[id_] for id_ in ids):
            job.is_in_line |= job.waits and job.is_due

    @rule(at_most=st.integers(1, 8))
    def pull(self, at_most: int) -> None:
        before = self._now()
        ready = {key for key in KEYS if self._budget(key, before, at_most)}
        least = self._allowed(before, at_most)
        with self.engine.begin() as db:
            claimed = pulling.pull(db, DECLARED, at_most=at_most, claiming=CLAIMING)
        now = self._now()
        assert least <= len(claimed) <= self._allowed(now, at_most)
        for held in claimed:
            job = self.jobs[held.id]
            assert (job.waits, job.is_due, job.is_in_line) == (True, True, True)
            assert not self.is_paused
            job.state, job.is_in_line, job.attempt = "running", False, job.attempt + 1
            self.held[job.id] = Lease(id=job.id, attempt=job.attempt)
        self._check(Counter(self.jobs[held.id].key for held in claimed), ready)

    def _check(self, started: Counter[str], ready: set[str]) -> None:
        """No limit is exceeded, and no key was passed over."""
        if not started:
            return
        at = self._started_at()
        self.starts += [at] * started.total()
        _check_rate(self.bounds.rate, self.starts)
        assert self._running() <= (self.bounds.concurrency or self._running())
        for key, count in started.items():
            self.key_starts[key] += [at] * count
            _check_rate(self.bounds.key_rate, self.key_starts[key])
            assert self._running(key) <= (self.bounds.key_concurrency or self._running(key))
        for key in KEYS:
            if key in ready and key not in started:
                others = self.passed_over.setdefault(key, Counter())
                others.update(started)
                assert max(others.values()) <= MOST_PASSED
            else:
                self.passed_over.pop(key, None)

    def _now(self) -> float:
        clock = one(self.engine, "SELECT CAST(extract(epoch FROM clock_timestamp()) AS float8)")
        return float(clock) + self.passed_s

    def _started_at(self) -> float:
        """When the last were started, to the microsecond where a rate counts it."""
        query = (
            "SELECT coalesce(starts_at[cardinality(starts_at)],"
            " CAST(extract(epoch FROM pulled_at) AS float8)) FROM limits"
        )
        logged = one(self.engine, query)
        if self.bounds.rate is None and self.bounds.key_rate is not None:
            logged = one(
                self.engine, "SELECT max(at) FROM limited_keys CROSS JOIN unnest(starts_at) AS at"
            )
        return float(logged) + self.passed_s

    def _running(self, key: str | None = None) -> int:
        return sum(key in (None, self.jobs[id_].key) for id_ in self.held)

    def _budget(self, key: str, now: float, at_most: int) -> int:
        """How many jobs of a key may start, by its own limits."""
        ready = [job for job in self.jobs.values() if job.key == key and job.is_in_line]
        most = sum(job.waits and job.is_due for job in ready)
        if self.bounds.key_concurrency is not None:
            most = min(most, self.bounds.key_concurrency - self._running(key))
        most = min(most, _rest(self.bounds.key_rate, self.key_starts[key], now, at_most))
        return 0 if self.is_paused else max(0, most)

    def _allowed(self, now: float, at_most: int) -> int:
        most = min(at_most, sum(self._budget(key, now, at_most) for key in KEYS))
        if self.bounds.concurrency is not None:
            most = min(most, self.bounds.concurrency - self._running())
        return max(0, min(most, _rest(self.bounds.rate, self.starts, now, at_most)))

    @precondition(lambda self: self.held)
    @rule(choice=choices)
    def finish(self, choice: int) -> None:
        ended = chosen(sorted(self.held), choice)
        with self.engine.begin() as db:
            jobs.finish(db, [self.held[id_] for id_ in ended])
        for id_ in ended:
            self.held.pop(id_)
            self.jobs[id_].state = "succeeded"

    @precondition(lambda self: self.held)
    @rule(choice=choices, how=st.sampled_from(["now", "later", "dead", "lost"]))
    def fail(self, choice: int, how: str) -> None:
        """Attempts fail; or their workers are gone, and the jobs are taken back."""
        ended = chosen(sorted(self.held), choice)
        retry_in_s = {"now": 0.0, "later": _LATER_S, "dead": None, "lost": 0.0}[how]
        outcome = Outcome.LOST if how == "lost" else Outcome.SNOOZED
        failures = [
            Failure(
                id=id_,
                attempt=self.held[id_].attempt,
                outcome=outcome,
                retry_in_s=retry_in_s,
            )
            for id_ in ended
        ]
        with self.engine.begin() as db:
            jobs.fail(db, failures)
        for id_ in ended:
            self.held.pop(id_)
            self.jobs[id_].state = "dead" if how == "dead" else "retrying"
            self.jobs[id_].is_due = how != "later"

    @rule(choice=choices, delay_s=st.sampled_from([0.0, _LATER_S]))
    def replay(self, choice: int, delay_s: float) -> None:
        ids = chosen(sorted(self.jobs), choice)
        with self.engine.begin() as db:
            jobs.requeue(db, ids, replay=1, queue="replay", delays_s=[delay_s] * len(ids))
        for job in (self.jobs[id_] for id_ in ids):
            if job.state != "running":
                job.state, job.is_due = "pending", delay_s == 0

    @rule(choice=choices)
    def hasten(self, choice: int) -> None:
        """An operator has jobs run now, whatever they wait for."""
        ids = chosen(sorted(self.jobs), choice)
        with self.engine.begin() as db:
            jobs.run_now(db, ids)
        for job in (self.jobs[id_] for id_ in ids):
            job.is_due |= job.waits

    @rule(choice=choices)
    def discard(self, choice: int) -> None:
        ids = chosen(sorted(self.jobs), choice & 0x1111)
        with self.engine.begin() as db:
            jobs.discard(db, ids, replay=None, why="no")
        for job in (self.jobs[id_] for id_ in ids):
            if job.waits or job.state == "dead":
                job.state, job.attempt = "discarded", job.attempt + 1

    @rule(choice=choices)
    def erase(self, choice: int) -> None:
        """Events are erased: their jobs end, running ones too."""
        ids = chosen(sorted(self.jobs), choice & 0x0101)
        events = rows(self.engine, "SELECT event FROM jobs WHERE id = ANY(:i)", i=ids)
        with self.engine.begin() as db:
            jobs.revoke(db, [row["event"] for row in events], why="erased")
        for job in (self.jobs[id_] for id_ in ids):
            if job.state not in ("succeeded", "discarded"):
                job.attempt += job.state != "running"
                self.held.pop(job.id, None)
                job.state = "discarded"

    @rule()
    def pause_or_resume(self) -> None:
        with self.engine.begin() as db:
            if self.is_paused:
                processors.resume(db, NAME)
            else:
                processors.pause(db, NAME, by="sara", reason=None)
        self.is_paused ^= True

    @rule(
        concurrency=some,
        rate=st.sampled_from([None, "3/10s", "2/5s", "4/20s"]),
        key_concurrency=some,
        key_rate=st.sampled_from([None, "2/10s", "1/5s"]),
    )
    def set_limits(self, **given: Any) -> None:
        with self.engine.begin() as db:
            assert limits.lock(db, NAME) is not None
            limits.override(db, NAME, given, by="sara", at=datetime.now(UTC))
        before, self.bounds = self.bounds, limits.bounds_of(given)
        # What is counted for one window says nothing of another.
        if before.rate != self.bounds.rate:
            self._forget("limits", self.starts)
        if before.key_rate != self.bounds.key_rate:
            self._forget("limited_keys", *self.key_starts.values())
        self.passed_over.clear()

    def _forget(self, table: str, *windows: Window) -> None:
        with self.engine.begin() as db:
            db.execute(text(f"UPDATE {table} SET starts_at = '{{}}', starts = '{{}}'"))
        for window in windows:
            window.clear()

    @rule(seconds=st.integers(1, 9))
    def wait(self, seconds: int) -> None:
        """Time passes: what is past is longer ago."""
        self.passed_s += seconds
        shift = f"interval '{seconds} s'"
        past = f"ARRAY(SELECT at - {seconds} FROM unnest(starts_at) AS at)"
        with self.engine.begin() as db:
            db.execute(text(f"UPDATE limits SET starts_at = {past}"))
            db.execute(
                text(
                    f"UPDATE limited_keys SET starts_at = {past}, held_until = held_until - {shift}"
                )
            )

    @invariant()
    def the_rows_are_those_of_the_model(self) -> None:
        stored = rows(
            self.engine,
            "SELECT j.id, j.state, j.discarded_at, j.attempt, l.job, l.claimed, l.key FROM jobs j"
            " LEFT JOIN limited_jobs l ON l.job = j.id",
        )
        assert len(stored) == len(self.jobs)
        for row in stored:
            job = self.jobs[row["id"]]
            state = "discarded" if row["discarded_at"] else row["state"]
            assert (state, row["attempt"]) == (job.state, job.attempt), job
            if job.state == "running":
                assert row["claimed"], job
            is_in_line = row["job"] is not None and not row["claimed"]
            # What does not wait any more leaves the line at the next look at it.
            job.is_in_line = job.is_in_line and is_in_line
            assert job.is_in_line == is_in_line, job

    def teardown(self) -> None:
        """Whatever happened before, everything runs once nothing hinders it."""
        if self.is_paused:
            self.pause_or_resume()
        self.hasten(2**16 - 1)
        self.enter(2**16 - 1)
        for _ in range(40 * len(self.jobs)):
            if not any(job.waits or job.state == "running" for job in self.jobs.values()):
                break
            self.pull(8)
            if self.held:
                self.finish(2**16 - 1)
            self.the_rows_are_those_of_the_model()
            self.wait(5)
        assert not any(job.waits or job.state == "running" for job in self.jobs.values())
        self.wait(86_400)
        self.pull(8)
        assert one(self.engine, "SELECT count(*) FROM limited_jobs") == 0
        assert one(self.engine, "SELECT count(*) FROM limited_keys") == 0


def _rest(rate: Rate | None, starts: Window, now: float, at_most: int) -> int:
    if rate is None:
        return at_most
    return max(0, rate.starts - sum(at + rate.window_s > now for at in starts))


def _check_rate(rate: Rate | None, starts: Window) -> None:
    if rate is None:
        return
    for begin in starts:
        end = begin + rate.window_s - 1e-3  # times are added up here, and rounded
        assert sum(begin <= at < end for at in starts) <= rate.starts


def test_whatever_happens_no_limit_is_exceeded_and_nothing_starves(
    engine: Engine, database_url: str
) -> None:
    machine = type("Machine", (LimitsMachine,), {"engine": engine, "url": database_url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples(60),
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
