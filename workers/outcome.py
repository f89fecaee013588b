"""What an attempt comes to: the decision, apart from the writing of it."""

import traceback

from ingest.errors import BodyKeyMissing
from ingest.store.pipeline.jobs import AbandonedJob, ClaimedJob, Failure, Outcome
from ingest.text import storable
from workers import breaker, places, retry
from workers.control import Discard, RetryAfter, Snooze, asked_s
from workers.registry import Processor
from workers.retry import Random, RetryPolicy
from workers.timeouts.signals import Interrupted, TimedOut

MESSAGE_LIMIT = 1_000
TRACEBACK_LIMIT = 8_000
WAIT_FOR_KEY_S = 60.0
"""Each time, the attempt is recorded."""
_CALLERS = ("workers.batches", "workers.coroutines.calls")
"""The modules whose frames lead to the processor's."""
_FRAMES = 20


def of_error(
    job: ClaimedJob, processor: Processor, error: BaseException, *, random: Random
) -> Failure:
    """Return what follows from the exception that ended an attempt, whatever it holds."""
    try:
        return _of_error(job, processor, error, random=random)
    except BaseException as broken:  # code of a user's exception, which reading it runs
        retry_in_s = _retry_in_s(job.failures + 1, processor.max_attempts, processor.rules, random)
        return _unread(job, error, broken, Outcome.FAILED, retry_in_s=retry_in_s)


def _of_error(
    job: ClaimedJob, processor: Processor, error: BaseException, *, random: Random
) -> Failure:
    if isinstance(error, Snooze):
        return _failure(job, processor, error, Outcome.SNOOZED, retry_in_s=asked_s(error))
    if isinstance(error, Discard):
        discarded = _failure(job, processor, error, Outcome.DISCARDED, retry_in_s=None)
        return breaker.marked(discarded, processor.breaker, error)
    if isinstance(error, Interrupted):
        ended = InterruptedError("its worker was told to end; this attempt does not count")
        ended = ended.with_traceback(error.__traceback__)
        return _failure(job, processor, ended, Outcome.RELEASED, retry_in_s=0.0)
    if isinstance(error, TimedOut):
        error = TimeoutError(f"took longer than {processor.timeout_s:g} s").with_traceback(
            error.__traceback__
        )
        outcome = Outcome.TIMED_OUT
    else:
        outcome = Outcome.FAILED
    retry_in_s = _retry_in_s(job.failures + 1, processor.max_attempts, processor.rules, random)
    if retry_in_s is not None and isinstance(error, RetryAfter):
        retry_in_s = asked_s(error)
    failure = _failure(job, processor, error, outcome, retry_in_s=retry_in_s)
    return breaker.marked(failure, processor.breaker, error)


def of_missing_body(job: ClaimedJob) -> Failure:
    """Return what follows when the event's body was erased, or dropped with those of its day:
    nothing is left to process."""
    return Failure(
        id=job.id,
        attempt=job.attempt,
        outcome=Outcome.DISCARDED,
        retry_in_s=None,
        error_type="MissingBody",
        error_message="The event's body was erased, or deleted when its retention ended.",
    )


def of_unreadable_key(job: ClaimedJob, processor: Processor, error: BaseException) -> Failure:
    """Return what follows when the key that orders the job cannot be told: nobody knows what it is
    to go before, and a retry would tell the same."""
    try:
        return _failure(job, processor, error, Outcome.DISCARDED, retry_in_s=None)
    except BaseException as broken:
        return _unread(job, error, broken, Outcome.DISCARDED, retry_in_s=None)


def of_missing_key(job: ClaimedJob, error: BodyKeyMissing) -> Failure:
    """Return what follows when this worker lacks the key of the event's body: the job waits for a
    worker that has it, and this attempt does not count."""
    return Failure(
        id=job.id,
        attempt=job.attempt,
        outcome=Outcome.RELEASED,
        retry_in_s=WAIT_FOR_KEY_S,
        error_type=type(error).__name__,
        error_message=str(error),
    )


def of_lost_worker(
    job: AbandonedJob, why: str, *, blamed: bool, rules: RetryPolicy, random: Random
) -> Failure:
    """Return what follows when the worker that held a job is gone.

    Args:
        job: the job, still running by its row.
        why: a sentence for the attempt.
        blamed: whether the worker ended, or stalled, over this job rather than another of its
            batch.
        rules: when to try a blamed job again; the others wait for nothing.
        random: uniform between two numbers."""
    return Failure(
        id=job.id,
        attempt=job.attempt,
        outcome=Outcome.LOST if blamed else Outcome.RELEASED,
        retry_in_s=_retry_in_s(job.failures + 1, job.max_attempts, rules, random)
        if blamed
        else 0.0,
        rescued=True,
        error_type="WorkerLost",
        error_message=why,
    )


def _retry_in_s(
    failures: int, max_attempts: int, rules: RetryPolicy, random: Random
) -> float | None:
    if failures >= max_attempts:
        return None
    return retry.delay(failures, rules, random=random)


def _failure(
    job: ClaimedJob,
    processor: Processor,
    error: BaseException,
    outcome: Outcome,
    *,
    retry_in_s: float | None,
) -> Failure:
    return Failure(
        id=job.id,
        attempt=job.attempt,
        outcome=outcome,
        retry_in_s=retry_in_s,
        error_type=storable(type(error).__qualname__, limit=200),
        error_message=storable(_message(error), limit=MESSAGE_LIMIT),
        traceback=None if isinstance(error, Snooze) else _trim(error),
        place=places.of_error(error, processor.function),
    )


def _unread(
    job: ClaimedJob,
    error: BaseException,
    broken: BaseException,
    outcome: Outcome,
    *,
    retry_in_s: float | None,
) -> Failure:
    return Failure(
        id=job.id,
        attempt=job.attempt,
        outcome=outcome,
        retry_in_s=retry_in_s,
        error_type=storable(type(error).__qualname__, limit=200),
        error_message=f"(it cannot be read: {type(broken).__name__})",
    )


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # an exception of a user's own, with a __str__ that fails
        return f"(its message cannot be shown: {type(broken).__name__})"


def _trim(error: BaseException) -> str:
    """Return the traceback from the processor's own frame on: its last frames, and of a long text
    its end."""
    trace = error.__traceback__.tb_next if error.__traceback__ else None
    trace = trace or error.__traceback__
    while trace and trace.tb_next and trace.tb_frame.f_globals.get("__name__") in _CALLERS:
        trace = trace.tb_next
    frames = traceback.extract_tb(trace)[-_FRAMES:]
    lines = traceback.format_list(frames)
    text = storable("".join(lines) + f"{type(error).__qualname__}: {_message(error)}")
    return text if len(text) <= TRACEBACK_LIMIT else "…" + text[-TRACEBACK_LIMIT + 1 :]
