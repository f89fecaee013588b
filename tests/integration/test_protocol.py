"""Each kind of step of the protocol's model, taken by the real statements: the rows follow it."""

from collections.abc import Callable, Iterator
from functools import cached_property
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine, text

from ingest import queues
from ingest.errors import LeaseLost
from ingest.store.pipeline import admission, jobs, processors
from ingest.store.pipeline.jobs import Claimant, Failure, Lease, NewJobs, Outcome
from ingest.store.pipeline.processors import Registered
from tests.model.paths import Way, ways
from tests.model.protocol import Event, Job, State, Step, start
from tests.support.deliver import body, deliver
from tests.support.effort import EFFORT
from tests.support.rows import execute, one, rows
from workers.recovery import rescue
from workers.retry import RetryPolicy

NAME, LATER_S, AT_ONCE = "steps", 10_000.0, 10
MAX_ATTEMPTS = 2
FAULTS = 2 if EFFORT == 1 else 4
"""How many things go wrong in one way."""
MADE = NewJobs(
    type="step.taken", processor=NAME, queue=queues.LIVE, max_attempts=MAX_ATTEMPTS, claimed=0
)
_RETRIES = RetryPolicy(base_s=LATER_S, cap_s=LATER_S)


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
    gone = 0
    for way in ways(start(events=1, faults=FAULTS)):
        Real(engine, database_url).go(way)
        gone += len(way)
    assert gone > 2_000, "there are fewer steps than the model has"


class Real:
    """One event in the database, to which happens what happens in the model."""

    def __init__(self, engine: Engine, url: str) -> None:
        self._engine = engine
        self._url = url
        self._body = body(MADE.type, {}, event_id=str(uuid4()))
        self._deliveries: list[UUID] = []
        self._asked_again = 0
        """How often it was asked for after it had taken effect."""
        self._replays = 0

    def go(self, way: Way) -> None:
        """Take the steps, and hold the rows against the model after each."""
        for number, (state, step) in enumerate(way):
            self._take(state, step)
            self._check(step, [taken.what for _, taken in way[: number + 1]])
        self._leave()

    def _take(self, state: State, step: Step) -> None:
        if step.what in _NOT_IN_THE_DATABASE:
            return
        worker = state.workers[step.by] if step.by >= 0 else None
        if worker is not None and not worker.is_idle:
            self._take_as_worker(step, worker.attempt)
        elif step.what in ("store", "the sender sends again what was answered"):
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
            with self._engine.begin() as db:
                assert jobs.fail(db, [_failure(lease, step)]) == {lease.id}
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
        admitted = admission.admit(
            db,
            self._deliveries,
            [MADE if not claims else _CLAIMED],
            replay_queue=queues.REPLAY,
            redispatch_after_s=0,
            claimant=Claimant(worker=f"worker {step.by}", lease_s=60) if claims else None,
        )
        assert len(admitted.claimed) == claims

    def claim(self, db: Connection, step: Step) -> None:
        claimed = jobs.claim(
            db, [self._job], worker=f"worker {step.by}", lease_s=60, max_attempts=MAX_ATTEMPTS
        )
        assert len(claimed) == (step.what == "claim")

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
        jobs.fail(db, [_failure(Lease(id=held.id, attempt=held.attempt), step, rescued=True)])

    def take_back(self, _db: Connection, _step: Step) -> None:
        taken = rescue.recover_expired(
            self._engine, _RETRIES, limit=AT_ONCE, random=lambda _least, most: most
        )
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


def _failure(lease: Lease, step: Step, *, rescued: bool = False) -> Failure:
    job = step.state.events[0].job
    assert job is not None
    assert step.kept is not None
    wait_s = None if job.state == "dead" else 0.0 if job.is_due else LATER_S
    return Failure(
        id=lease.id,
        attempt=lease.attempt,
        outcome=Outcome(step.kept.outcome),
        retry_in_s=wait_s,
        rescued=rescued,
    )


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
