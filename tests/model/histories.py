"""Hold the histories of jobs in a database against the model: could it have come to each?"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Engine, text

from tests.model.protocol import IDLE, Attempt, Event, Rules, State, Step, steps

_NOT_OF_A_JOB = ("the sender sends again what was answered", "the receiver ends after its commit")

# Most jobs have one history, so they are counted by the server.
_HISTORIES = text(
    """
    SELECT state, trigger, attempt, failures, max_attempts, is_discarded, numbers, triggers,
           outcomes, count(*) AS jobs, min(CAST(event AS text)) AS event
    FROM (
        SELECT j.event, j.state, j.trigger, j.attempt, j.failures, j.max_attempts,
               j.discarded_at IS NOT NULL AS is_discarded,
               array_agg(a.number ORDER BY a.number) AS numbers,
               array_agg(a.trigger ORDER BY a.number) AS triggers,
               array_agg(a.outcome ORDER BY a.number) AS outcomes
        FROM ingest.jobs j LEFT JOIN ingest.attempts a ON a.job = j.id
        GROUP BY j.id
    ) AS history
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
    """
)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The attempts of a job that are kept, in their order, and what the job is now."""

    attempts: tuple[Attempt, ...]
    state: str
    trigger: str
    attempt: int
    failures: int
    max_attempts: int
    is_discarded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Histories:
    """The histories that a database holds."""

    kinds: int
    """So many different ones."""
    impossible: Mapping[History, str]
    """Those that the model cannot come to, each with a sentence."""


def check(engine: Engine) -> Histories:
    """Return which histories of jobs the model cannot come to.

    Of each job the `max_attempts` of today is taken for those of its whole history.
    """
    with engine.connect() as connection:
        rows = connection.execute(_HISTORIES).all()
    impossible = {}
    for row in rows:
        kept = zip(row.numbers, row.triggers, row.outcomes, strict=True)
        history = History(
            attempts=tuple(Attempt(*attempt) for attempt in kept if attempt[0] is not None),
            state=row.state,
            trigger=row.trigger,
            attempt=row.attempt,
            failures=row.failures,
            max_attempts=row.max_attempts,
            is_discarded=row.is_discarded,
        )
        if not is_possible(history):
            impossible[history] = _sentence(history, row.jobs, row.event)
    return Histories(kinds=len(rows), impossible=impossible)


def is_possible(history: History) -> bool:
    """Return whether the model can come to a history, whatever goes wrong and how often."""
    rules = Rules(max_attempts=history.max_attempts, faults_end=False)
    arrived = Event(sender="told", stored=1, unadmitted=1, is_hinted=True)
    first = (State((arrived,), (IDLE,), False, 0, 0), 0)
    known, waiting = {first}, deque([first])
    while waiting:
        state, matched = waiting.popleft()
        if matched == len(history.attempts) and _is_end(state, history):
            return True
        for step in steps(state, rules):
            if step.what in _NOT_OF_A_JOB or not _fits(step, history, matched):
                continue
            after = (step.state, matched + (step.kept is not None))
            if after not in known:
                known.add(after)
                waiting.append(after)
    return False


def _fits(step: Step, history: History, matched: int) -> bool:
    """Return whether the step keeps the attempt that comes next, or none."""
    job = step.state.events[0].job
    if job is not None and job.attempt > history.attempt:
        return False
    return step.kept is None or history.attempts[matched : matched + 1] == (step.kept,)


def _is_end(state: State, history: History) -> bool:
    job = state.events[0].job
    return job is not None and (
        job.state,
        job.trigger,
        job.attempt,
        job.failures,
        job.is_discarded,
    ) == (
        history.state,
        history.trigger,
        history.attempt,
        history.failures,
        history.is_discarded,
    )


def _sentence(history: History, jobs: int, event: str | UUID) -> str:
    attempts = [
        f"{attempt.number} {attempt.trigger} {attempt.outcome}" for attempt in history.attempts
    ]
    return (
        f"the model cannot come to what {jobs} jobs went through, one of the event {event}:"
        f" {', '.join(attempts) or 'no attempt kept'}; {history.state} by {history.trigger} at"
        f" attempt {history.attempt}, {history.failures} of {history.max_attempts} failures"
    )
