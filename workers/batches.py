"""One transaction over some claimed jobs of one processor: each call in a savepoint, then finish.

When the transaction itself breaks (connection lost, lease lost, commit refused), nothing of it is
committed, and the jobs that are not to blame are returned to be run again, apart.
"""

import inspect
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol
from uuid import UUID

from sqlalchemy import Connection, Engine
from structlog.contextvars import bound_contextvars

from ingest import logs
from ingest.encryption.keys import NO_KEYS, BodyKeys
from ingest.errors import (
    BodyKeyMissing,
    BodyTampered,
    InvalidEnvelope,
    LeaseLost,
    UnknownSource,
)
from ingest.sources import operator
from ingest.sources.base import Source
from ingest.store.pipeline.breaker_state import Sign
from ingest.store.pipeline.histograms import Counted, counted
from ingest.store.pipeline.jobs import ClaimedJob, Failure, JobRef, Lease
from ingest.store.pipeline.metrics import LAG, SUCCEEDED, Note
from workers import breaker, outcome
from workers.counts import Tally
from workers.event import Event
from workers.registry import Processor
from workers.retry import Random
from workers.timeouts.signals import Interrupted, TimeLimit
from workers.tracing.base import Traces
from workers.transaction import Effects

log = logs.logger(__name__)

_ends = itertools.count(1)
"""Numbers the ends of calls, on whatever thread they end."""


class Recorder(Protocol):
    """Keeps which job runs."""

    def mark_running(self, job: Lease) -> None:
        """Note that `job` runs now."""

    def mark_idle(self) -> None:
        """Note that no job runs, or none that could be named."""


@dataclass(slots=True)
class Result:
    """What a slice came to. Jobs in no list have succeeded or are no longer ours."""

    failures: list[Failure] = field(default_factory=list)
    again: list[ClaimedJob] = field(default_factory=list)
    behind: list[ClaimedJob] = field(default_factory=list)
    """Jobs behind one of their key that did not succeed: they have not begun."""
    stopped: set[UUID] = field(default_factory=set)
    """The keys of which a job did not succeed."""
    woken: list[JobRef] = field(default_factory=list)
    """Jobs that were behind those that have succeeded, and may be claimed now."""
    returned: "list[Returned]" = field(default_factory=list)
    """Calls without effects in PostgreSQL, whose jobs the caller finishes."""
    problem: Exception | None = None
    """Why the jobs in none of the lists did not come to a result: there is no database."""
    ended_at: int = 0
    """The number of its last end, among those of all calls of this process."""
    answered_at: int = 0
    """That of the last end that says that the target is up; 0: none does."""

    def fail(self, job: ClaimedJob, failure: Failure) -> None:
        """Note that a job failed, and that what is behind it is not to run."""
        self.failures.append(failure)
        self.ended_at = next(_ends)
        if failure.sign is Sign.UP:
            self.answered_at = self.ended_at
        self.stop(job)

    def answer(self) -> None:
        """Note that a call has succeeded: with a breaker, no failure before it is in a row with one
        after it."""
        breaker.answered(self.failures)
        self.ended_at = self.answered_at = next(_ends)

    def stop(self, job: ClaimedJob) -> None:
        """Note that what is behind a job is not to run."""
        if job.key is not None:
            self.stopped.add(job.key)

    def holds_back(self, job: ClaimedJob) -> bool:
        """Return whether a job is behind one that did not succeed; note it, if so."""
        if job.key not in self.stopped:
            return False
        self.behind.append(job)
        return True


class Returned(NamedTuple):
    """A job whose call has returned."""

    job: ClaimedJob
    took_s: float
    """The call of a list counts as long for each of its events."""


class Call(NamedTuple):
    """A claimed job with its event opened."""

    job: ClaimedJob
    event: Event

    @property
    def held(self) -> Lease:
        """Return the claim."""
        return Lease(id=self.job.id, attempt=self.job.attempt)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRunner:
    """Runs slices in this process."""

    engine: Engine
    """For processors, apart from the engine of our own statements; guarded (workers.guard)."""
    sources: Mapping[str, Source]
    recorder: Recorder
    time_limit: TimeLimit
    random: Random
    """Uniform between two numbers."""
    tally: Tally
    traces: Traces = field(default_factory=Traces)
    body_keys: BodyKeys = NO_KEYS
    """What stored bodies are encrypted with."""
    redispatch_after_s: float = 10.0
    """For how long the relay leaves to us the jobs that were behind one of ours."""
    clock: Callable[[], float] = time.time
    """Unix time in seconds: how long calls take, and how far behind the deliveries we are."""

    def run(self, processor: Processor, claimed: Sequence[ClaimedJob]) -> Result:
        """Call `processor` for each job, finish those that succeeded, commit.

        A single job always comes to a result, unless there is no database: then `problem` says so,
        what had failed before is still to be recorded, and the leases of the others end.
        """
        result = Result()
        calls = self.open_calls(processor, claimed, result)
        try:
            self._run_calls(processor, calls, result)
        except Exception as error:
            result.problem = error
        return result

    def _run_calls(self, processor: Processor, calls: Sequence[Call], result: Result) -> None:
        """Raises what SQLAlchemy raises when there is no database."""
        if processor.is_outside:
            for call in calls:
                if result.holds_back(call.job):
                    continue
                if breaker.is_down(processor.breaker, result.failures):
                    result.fail(call.job, breaker.not_called(call.job))
                    continue
                self._run_outside(processor, call, result)
        elif calls:
            with Effects(self.engine) as effects:
                _BatchTransaction(self, processor, calls, effects, result).run()

    def _run_outside(self, processor: Processor, call: Call, result: Result) -> None:
        """Call a processor that has no effects in PostgreSQL, and finish its job after that: no
        transaction is open while it waits for others."""
        try:
            took_s = self.call_function(processor, [call], self.engine)
        except BaseException as error:
            self.rest()
            failure = outcome.of_error(call.job, processor, error, random=self.random)
            result.fail(call.job, failure)
            return
        if processor.breaker is not None:
            result.answer()
        with Effects(self.engine) as effects:
            transaction = _BatchTransaction(self, processor, [call], effects, result)
            transaction.run(took_s={call.job.id: took_s})

    def call_function(
        self, processor: Processor, calls: Sequence[Call], database: Connection | Engine
    ) -> float:
        """Call the function for the events of `calls`, within its limit. Return how long it took,
        in seconds. Raises what it raises."""
        events = [call.event for call in calls]
        if len(calls) == 1:
            self.recorder.mark_running(calls[0].held)
        else:
            self.recorder.mark_idle()
        limit = self.time_limit(processor.timeout_s)
        traced = self.traces.call(processor, [call.job for call in calls])
        began = self.clock()
        with log_context(processor, events), traced, limit:
            returned = processor.function(argument(processor, events), database)
        if returned is not None and inspect.isawaitable(returned):
            raise NotAwaited
        return self.clock() - began

    def rest(self) -> None:
        """Note that nothing runs any more."""
        self.time_limit.rest()
        self.recorder.mark_idle()

    def try_calls(self, processor: Processor, calls: Sequence[Call], effects: Effects) -> Result:
        """Call `processor` for each of `calls`, and finish and commit nothing: for tests of
        processors. When the transaction breaks, the calls that may have broken it have failed."""
        result = Result()
        transaction = _BatchTransaction(self, processor, calls, effects, result)
        try:
            transaction.call_all()
        except _Broken as broken:
            for call in broken.suspects:
                transaction.fail(call, broken.error)
        return result

    def open_calls(
        self, processor: Processor, claimed: Sequence[ClaimedJob], result: Result
    ) -> list[Call]:
        """Return the events of the jobs. A job whose body is gone or is no event fails here; one
        whose body this process cannot decrypt is given back."""
        calls = []
        for job in claimed:
            if result.holds_back(job):
                continue
            if job.body is None:
                result.fail(job, outcome.of_missing_body(job))
                continue
            try:
                body = self.body_keys.open(job.body, job.event, job.body_key)
                calls.append(self.call(processor, job, body))
            except BodyKeyMissing as error:
                result.fail(job, outcome.of_missing_key(job, error))
            except (BodyTampered, InvalidEnvelope, UnknownSource) as error:
                result.fail(job, outcome.of_error(job, processor, error, random=self.random))
        return calls

    def call(self, processor: Processor, job: ClaimedJob, body: bytes) -> Call:
        """Return a job with its event, opened from the raw bytes.

        Raises:
            UnknownSource, InvalidEnvelope: there is no event.
        """
        slug = operator.reader(job.source, job.event_id)
        source = self.sources.get(slug)
        if source is None:
            raise UnknownSource(f"No source {slug} is configured.", reason="unknown_source")
        envelope = source.parse(body)
        own_id = str(job.event)
        event = Event(
            id=own_id,
            source=slug,
            event_id=job.event_id,
            type=job.type,
            occurred_at=envelope.occurred_at,
            received_at=job.received_at,
            data=envelope.data,
            body=body,
            attempt=job.attempt,
            idempotency_key=f"{own_id}:{processor.name}",
            is_edited=job.source == operator.SLUG,
        )
        return Call(job=job, event=event)


class NotAwaited(TypeError):
    """A function that is no coroutine function returned something to be awaited."""

    def __init__(self) -> None:
        super().__init__(
            "the processor is async behind a decorator that is not: declare it with a decorator"
            " that is `async def` itself"
        )


class _Broken(Exception):
    """The transaction is gone, by one of `suspects` because of `error`."""

    def __init__(self, suspects: Sequence[Call], error: BaseException) -> None:
        super().__init__()
        self.suspects = suspects
        self.error = error


class _BatchTransaction:
    """One transaction."""

    def __init__(
        self,
        runner: BatchRunner,
        processor: Processor,
        calls: Sequence[Call],
        effects: Effects,
        result: Result,
    ) -> None:
        self._runner = runner
        self._processor = processor
        self._calls = calls
        self._effects = effects
        self._result = result
        self._took_s: dict[int, float] = {}

    def run(self, took_s: Mapping[int, float] | None = None) -> None:
        """Run, finish and commit, or sort out whose fault it is that this does not work.

        Calls that were made already are given with how long each took, by the ids of the jobs.
        """
        try:
            if took_s is None:
                self.call_all()
            else:
                self._took_s.update(took_s)
            self._finish()
        except LeaseLost as error:
            log.warning("lease_lost", processor=self._processor.name, jobs=sorted(error.job_ids))
            self._redo_all_but(error.job_ids)
        except _Broken as broken:
            self._effects.discard_connection()
            if len(broken.suspects) == 1 or isinstance(broken.error, Interrupted):
                for call in broken.suspects:
                    self.fail(call, broken.error)
            self._redo_all_but(frozenset())
        finally:
            self._runner.rest()

    def call_all(self) -> None:
        """Call the function, in savepoints. Raises `_Broken` when the transaction is gone."""
        if self._processor.batch:
            self._call(self._calls)
        else:
            for call in self._calls:
                if not self._result.holds_back(call.job):
                    self._call([call])

    def _call(self, calls: Sequence[Call]) -> None:
        """Call the function in a savepoint. A list that fails is halved until the failing events
        are found. Once the target is found to be down, nothing more is called."""
        if breaker.is_down(self._processor.breaker, self._result.failures):
            for call in calls:
                self._result.fail(call.job, breaker.not_called(call.job))
            return
        try:
            took_s = self._runner.call_function(self._processor, calls, self._effects.db)
            self._took_s.update((call.job.id, took_s) for call in calls)
            self._effects.release_savepoint()
            if self._processor.breaker is not None:
                self._result.answer()
            return
        except BaseException as error:  # sys.exit() too is no way to leave a processor
            failure = error
        if not self._effects.rollback():
            raise _Broken(calls, failure)
        if len(calls) == 1 or isinstance(failure, Interrupted):
            for call in calls:
                self.fail(call, failure)
            return
        middle = len(calls) // 2
        self._call(self._afresh(calls[:middle]))
        self._call(self._afresh(calls[middle:]))

    def _afresh(self, calls: Sequence[Call]) -> Sequence[Call]:
        """Return the same with new events: the call that failed may have changed the old ones."""
        return [self._runner.call(self._processor, call.job, call.event.body) for call in calls]

    def _finish(self) -> None:
        """Commit. Where there is but one job, the record goes on naming it: a process that dies in
        a commit dies over it."""
        self._runner.time_limit.rest()
        if len(self._calls) > 1:
            self._runner.recorder.mark_idle()
        settled = self._settled()
        succeeded = [call for call in self._calls if call.job.id not in settled]
        if not succeeded:
            return
        returned = [Returned(call.job, self._took_s[call.job.id]) for call in succeeded]
        took, lags = durations(returned, now=self._runner.clock())
        try:
            with self._runner.traces.commit([call.job for call in succeeded]):
                self._result.woken += self._effects.commit(
                    [call.held for call in succeeded],
                    notes_of(self._processor.name, took, lags),
                    hint_s=self._runner.redispatch_after_s if self._processor.order else None,
                    breaker_of=self._processor.name if self._processor.breaker else None,
                )
        except LeaseLost:
            raise
        except Exception as error:  # a deferred constraint, a deadlock, the connection
            raise _Broken(succeeded, error) from error
        self._runner.tally.succeeded(self._processor.name, took, lags)
        if self._effects.breaker_closed:
            log.info("breaker_closed", processor=self._processor.name)

    def fail(self, call: Call, error: BaseException) -> None:
        """Note what follows from the exception that ended a call."""
        failure = outcome.of_error(call.job, self._processor, error, random=self._runner.random)
        self._result.fail(call.job, failure)

    def _redo_all_but(self, lost: frozenset[int]) -> None:
        """Return the jobs to be run again: neither those that did not succeed, nor what is behind
        them."""
        unsuccessful = lost | {failure.id for failure in self._result.failures}
        behind = {job.id for job in self._result.behind}
        stopped: set[UUID | None] = set()
        for job in (call.job for call in self._calls if call.job.id not in behind):
            if job.id in unsuccessful:
                self._result.stop(job)
                stopped |= {job.key} - {None}
            elif job.key in stopped:
                self._result.behind.append(job)
            else:
                self._result.again.append(job)

    def _settled(self) -> set[int]:
        """Return the jobs that failed, and those that were held back."""
        return {failure.id for failure in self._result.failures} | {
            job.id for job in self._result.behind
        }


def argument(processor: Processor, events: Sequence[Event]) -> object:
    """Return what the function is given. A model may have code of its author's, so its data is read
    within the call's limit."""
    read = [processor.model.read(event) for event in events] if processor.model else events
    return read if processor.batch else read[0]


def durations(returned: Sequence[Returned], *, now: float) -> tuple[Counted, Counted]:
    """Return how long calls took, and how long after the delivery they have ended, replays
    apart."""
    took = counted([took_s for _, took_s in returned])
    lags = counted([now - job.received_at.timestamp() for job, _ in returned if job.replay is None])
    return took, lags


def notes_of(processor: str, took: Counted, lags: Counted) -> list[Note]:
    """Return what the metrics of the minute gain by calls that succeeded."""
    kinds = ((SUCCEEDED, processor, took), (LAG, "", lags))
    return [
        Note(what=what, label=label, cell=cell, count=count)
        for what, label, histogram in kinds
        for cell, count in histogram.cells.items()
    ]


def log_context(processor: Processor, events: Sequence[Event]) -> AbstractContextManager[object]:
    """Return what adds ids to every log line of the processor. They are our own ids: a sender's may
    hold phone numbers."""
    if len(events) > 1:
        return bound_contextvars(processor=processor.name)
    return bound_contextvars(id=events[0].id, processor=processor.name, attempt=events[0].attempt)
