"""Each kind of step of the protocol's model, taken by the real statements: the rows follow it."""

from collections.abc import Callable, Hashable, Iterator
from functools import cached_property
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine, text

from ingest import queues
from ingest.errors import LeaseLost
from ingest.store.pipeline import admission, jobs, processors
from ingest.store.pipeline.jobs import Claimant, ClaimedJob, Failure, Lease, NewJobs, Outcome
from ingest.store.pipeline.processors import Registered
from tests.model.paths import Way, ways
from tests.model.protocol import Event, Job, State, Step, start
from tests.support.deliver import body, deliver
from tests.support.effort import EFFORT
from tests.support.rows import execute, one, rows
from workers import Discard, Snooze, outcome
from workers.recovery import rescue
from workers.registry import Processor
from workers.retry import RetryPolicy
from workers.timeouts.signals import Interrupted, TimedOut

NAME, LATER_S, AT_ONCE = "steps", 10_000.0, 10
MAX_ATTEMPTS = 2
FAULTS = 2 if EFFORT == 1 else 4
"""How many things go wrong in one way."""
MADE = NewJobs(
    type="step.taken", processor=NAME, queue=queues.LIVE, max_attempts=MAX_ATTEMPTS, claimed=0
)
_RETRIES = RetryPolicy(base_s=LATER_S, cap_s=LATER_S)
PROCESSOR = Processor(
    name=NAME,
    types=(MADE.type,),
    function=print,
    batch=False,
    queue=MADE.queue,
    threads=1,
    max_attempts=MAX_ATTEMPTS,
    timeout_s=30,
    rules=_RETRIES,
)


@pytest.fixture
def tables(engine: Engine) -> Iterator[None]:
    """A processor, and a table for its effects."""
    execute(engine, "CREATE TABLE steps_taken (event uuid NOT NULL)")
    with engine.begin() as db:
        processors.register(
            db,
            [
                Registered(
                    name=NAME,
                    types=(MADE.type,),
                    queue=MADE.queue,
                    batch=False,
                    threads=1,
                    max_attempts=MAX_ATTEMPTS,
                    timeout_s=30,
                )
            ],
        )
    yield
    execute(engine, "DROP TABLE steps_taken")


@pytest.mark.usefixtures("tables")
def test_the_statements_do_what_the_model_says_step_by_step(
    engine: Engine, database_url: str
) -> None:
    taken: set[tuple[str, str | None]] = set()
    refused: set[Hashable] = set()
    for way in ways(start(events=1, faults=FAULTS)):
        Real(engine, database_url, refused).go(way)
        taken |= {(step.what, step.kept and step.kept.outcome) for _, step in way}
    whats = {what for what, _ in taken}
    assert whats == {*_STEPS, *_STORES, *_OF_A_BUSY_WORKER, *_NOT_IN_THE_DATABASE}
    assert {outcome for _, outcome in taken} == {None, *Outcome}
    assert len(refused) > 50


class Real:
    """One event in the database, to which happens what happens in the model."""

    def __init__(self, engine: Engine, url: str, refused: set[Hashable]) -> None:
        """`refused` has the kinds of state in which all was tried that the model does not allow."""
        self._engine = engine
        self._url = url
        self._refused = refused
        self._claimed: dict[int, ClaimedJob] = {}
        """By the number of the attempt."""
        self._body = body(MADE.type, {}, event_id=str(uuid4()))
        self._deliveries: list[UUID] = []
        self._asked_again = 0
        """How often it was asked for after it had taken effect."""
        self._replays = 0

    def go(self, way: Way) -> None:
        """Take the steps, and hold the rows against the model after each."""
        for number, (state, step) in enumerate(way):
            self._take(state, step)
            steps = [taken.what for _, taken in way[: number + 1]]
            self._check(step, steps)
            self._try_what_is_not_allowed(step.state, steps)
        self._leave()

    def _take(self, state: State, step: Step) -> None:
        if step.what in _NOT_IN_THE_DATABASE:
            return
        worker = state.workers[step.by] if step.by >= 0 else None
        if worker is not None and not worker.is_idle:
            self._take_as_worker(step, worker.attempt)
        elif step.what in _STORES:
            self._deliveries += deliver(self._url, [self._body])
        else:
            with self._engine.begin() as db:
                _STEPS[step.what](self, db, step)

    def _take_as_worker(self, step: Step, attempt: int) -> None:
        """What a worker does with the job that it holds, or held."""
        lease = Lease(id=self._job, attempt=attempt)
        if step.what == "give back":
            with self._engine.begin() as db:
                jobs.give_back(db, [lease], keys=[])
        elif step.kept is not None:
            error = _ERRORS[step.kept.outcome]
            failure = outcome.of_error(self._claimed[attempt], PROCESSOR, error, random=_longest)
            with self._engine.begin() as db:
                assert jobs.fail(db, [failure]) == {lease.id}
        elif step.what == "finish":
            self._finish(lease)
        else:
            assert step.what == "roll back"
            with pytest.raises(LeaseLost):
                self._finish(lease)

    def _finish(self, lease: Lease) -> None:
        """The effect and the success, in one transaction."""
        with self._engine.begin() as db:
            db.execute(text("INSERT INTO steps_taken VALUES (:event)"), {"event": self._event})
            jobs.finish(db, [lease])

    def hint_at_delivery(self, db: Connection, _step: Step) -> None:
        hinted = admission.dispatch_overdue(db, queues.LIVE, limit=AT_ONCE, ttl_s=0)
        assert set(hinted) & set(self._deliveries)

    def hint_at_job(self, db: Connection, _step: Step) -> None:
        queue = db.execute(text("SELECT queue FROM jobs WHERE id = :id"), {"id": self._job})
        assert jobs.dispatch_due(db, queue.scalar_one(), limit=AT_ONCE, ttl_s=0) == [self._job]

    def admit(self, db: Connection, step: Step) -> None:
        claims = step.what == "admit and claim"
        would_claim = claims or step.state.is_paused
        admitted = admission.admit(
            db,
            self._deliveries,
            [_CLAIMED if would_claim else MADE],
            replay_queue=queues.REPLAY,
            redispatch_after_s=0,
            claimant=Claimant(worker=f"worker {step.by}", lease_s=LATER_S) if would_claim else None,
        )
        assert len(admitted.claimed) == claims
        self._claimed |= {job.attempt: job for job in admitted.claimed}

    def claim(self, db: Connection, step: Step) -> None:
        claimed = self._claim(db, f"worker {step.by}")
        assert len(claimed) == (step.what == "claim")
        self._claimed |= {job.attempt: job for job in claimed}

    def _claim(self, db: Connection, worker: str) -> list[ClaimedJob]:
        return jobs.claim(
            db, [self._job], worker=worker, lease_s=LATER_S, max_attempts=MAX_ATTEMPTS
        )

    def let_time_pass(self, db: Connection, _step: Step) -> None:
        jobs.run_now(db, [self._job])

    def end_lease(self, db: Connection, _step: Step) -> None:
        db.execute(
            text("UPDATE jobs SET lease_until = now() - interval '1 s' WHERE id = :id"),
            {"id": self._job},
        )

    def find_crash(self, db: Connection, step: Step) -> None:
        worker = one(self._engine, "SELECT worker FROM jobs WHERE id = :id", id=self._job)
        (held,) = jobs.held_by(db, worker)
        is_blamed = step.kept is not None and step.kept.outcome == Outcome.LOST
        jobs.fail(
            db,
            [
                outcome.of_lost_worker(
                    held, "It is gone.", blamed=is_blamed, rules=_RETRIES, random=_longest
                )
            ],
        )

    def take_back(self, _db: Connection, _step: Step) -> None:
        taken = rescue.recover_expired(self._engine, _RETRIES, limit=AT_ONCE, random=_longest)
        assert taken == 1

    def park(self, db: Connection, _step: Step) -> None:
        assert sum(jobs.park(db, queue, [NAME], limit=AT_ONCE) for queue in _QUEUES) == 1

    def unpark(self, db: Connection, _step: Step) -> None:
        assert sum(jobs.unpark(db, queue, [NAME], limit=AT_ONCE) for queue in _QUEUES) == 1

    def pause(self, db: Connection, _step: Step) -> None:
        processors.pause(db, NAME, by="sara", reason=None)

    def resume(self, db: Connection, _step: Step) -> None:
        processors.resume(db, NAME)

    def replay(self, db: Connection, step: Step) -> None:
        self._replays += 1
        self._asked_again += step.kept is not None
        jobs.requeue(db, [self._job], replay=self._replays, queue=queues.REPLAY, delays_s=[0.0])

    def discard(self, db: Connection, _step: Step) -> None:
        assert jobs.discard(db, [self._job], replay=None, why="no") == 1

    def _check(self, step: Step, steps: list[str]) -> None:
        event = step.state.events[0]
        assert self._read() == _as_read(event, self._asked_again), steps
        if step.kept is not None:
            kept = rows(
                self._engine,
                "SELECT number, trigger, outcome FROM attempts WHERE job = :id"
                " ORDER BY number DESC LIMIT 1",
                id=self._job,
            )
            assert kept == [step.kept._asdict()], steps

    def _try_what_is_not_allowed(self, state: State, steps: list[str]) -> None:
        """In each kind of state once, try all that the model does not allow: nothing changes."""
        job = state.events[0].job
        kind = job and (job._replace(attempt=min(job.attempt, 1)), state.is_paused)
        if job is None or kind in self._refused:
            return
        self._refused.add(kind)
        before = self._read()
        with self._engine.begin() as db:
            self._work_under_other_numbers(db, job)
            if not (job.waits and job.is_due) or state.is_paused:
                assert self._claim(db, "nobody") == [], steps
            if not job.is_due or job.is_parked or state.is_paused or not job.waits:
                for queue in _QUEUES:
                    assert jobs.dispatch_due(db, queue, limit=AT_ONCE, ttl_s=0) == [], steps
            if job.state != "running" or job.is_leased:
                assert jobs.expired(db, limit=AT_ONCE) == [], steps
            if job.state == "running":
                replayed = jobs.requeue(
                    db, [self._job], replay=1, queue=queues.REPLAY, delays_s=[0.0]
                )
                assert (replayed.job_ids, replayed.running) == ((), 1), steps
            if job.state in ("running", "succeeded") or job.is_discarded:
                assert jobs.discard(db, [self._job], replay=None, why="no") == 0, steps
        assert self._read() == before, steps

    def _work_under_other_numbers(self, db: Connection, job: Job) -> None:
        """What a worker tries under the number of an attempt that does not run."""
        for attempt in range(1, job.attempt + 2):
            if job.state == "running" and attempt == job.attempt:
                continue
            lease = Lease(id=self._job, attempt=attempt)
            lost = Failure(id=lease.id, attempt=attempt, outcome=Outcome.FAILED, retry_in_s=LATER_S)
            assert jobs.fail(db, [lost]) == set()
            assert jobs.renew(db, [lease], lease_s=LATER_S) == set()
            jobs.give_back(db, [lease], keys=[])
            with pytest.raises(LeaseLost):
                jobs.finish(db, [lease])

    def _read(self) -> dict[str, object]:
        """What is stored, in the model's words."""
        (read,) = rows(
            self._engine,
            """
            SELECT (SELECT count(*) FROM deliveries WHERE id = ANY(:ids)) AS stored,
                   (SELECT count(*) FROM unadmitted WHERE delivery = ANY(:ids)) AS unadmitted,
                   (SELECT count(*) FROM steps_taken WHERE event = ANY(:ids)) AS effects,
                   (SELECT count(*) FROM attempts WHERE job = ANY(
                        ARRAY(SELECT id FROM jobs WHERE event = ANY(:ids)))) AS kept,
                   ARRAY(
                       SELECT jsonb_build_object(
                           'state', state, 'trigger', trigger, 'attempt', attempt,
                           'failures', failures,
                           'is_due', coalesce(next_attempt_at <= now(), true),
                           'is_parked', coalesce(hinted_until = 'infinity', false),
                           'is_leased', coalesce(lease_until > now(), false),
                           'is_discarded', discarded_at IS NOT NULL)
                       FROM jobs WHERE event = ANY(:ids)
                   ) AS jobs
            """,
            ids=self._deliveries,
        )
        return read

    @property
    def _event(self) -> UUID:
        return min(self._deliveries)

    @cached_property
    def _job(self) -> int:
        found: int = one(
            self._engine, "SELECT id FROM jobs WHERE event = ANY(:ids)", ids=self._deliveries
        )
        return found

    def _leave(self) -> None:
        """Leave nothing that the next way would come upon."""
        execute(self._engine, "UPDATE processors SET paused_at = NULL, parked = false")
        for table in ("unadmitted", "attempts", "jobs"):
            execute(self._engine, f"DELETE FROM {table}")


_CLAIMED = NewJobs(
    type=MADE.type, processor=NAME, queue=MADE.queue, max_attempts=MAX_ATTEMPTS, claimed=1
)
_QUEUES = (queues.LIVE, queues.REPLAY)
_ERRORS: dict[str, BaseException] = {
    Outcome.FAILED: RuntimeError("no"),
    Outcome.TIMED_OUT: TimedOut(),
    Outcome.SNOOZED: Snooze(LATER_S),
    Outcome.DISCARDED: Discard("no"),
    Outcome.RELEASED: Interrupted(),
}
_STORES = ("store", "the sender sends again what was answered")
_OF_A_BUSY_WORKER = (
    "finish",
    "roll back",
    "give back",
    "the processor raises",
    "the worker is told to end",
)
_NOT_IN_THE_DATABASE = (
    "answer",
    "the receiver ends after its commit",
    "Redis forgets",
    "PostgreSQL restarts",
    "the worker process ends",
)
_STEPS: dict[str, Callable[[Real, Connection, Step], None]] = {
    "hint at the delivery": Real.hint_at_delivery,
    "hint at the job": Real.hint_at_job,
    "admit": Real.admit,
    "admit and claim": Real.admit,
    "claim": Real.claim,
    "find nothing to claim": Real.claim,
    "time passes": Real.let_time_pass,
    "the lease ends": Real.end_lease,
    "the worker stalls past its lease": Real.end_lease,
    "find the crash": Real.find_crash,
    "take back": Real.take_back,
    "park": Real.park,
    "unpark": Real.unpark,
    "an operator pauses the processor": Real.pause,
    "resume": Real.resume,
    "an operator replays": Real.replay,
    "an operator discards": Real.discard,
}


def _longest(_least: float, most: float) -> float:
    return most


def _as_read(event: Event, asked_again: int) -> dict[str, object]:
    return {
        "stored": event.stored,
        "unadmitted": event.unadmitted,
        "effects": event.effects + asked_again,
        "kept": event.kept,
        "jobs": [_as_row(event.job)] if event.job is not None else [],
    }


def _as_row(job: Job) -> dict[str, object]:
    return job._asdict()
