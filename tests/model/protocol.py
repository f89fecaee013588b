"""The protocol as a model: what sender, receiver, relay, workers and operators may do next.

One processor, so that an event has one job. Redis and time do as they like: a hint may be taken at
any time or never, a lease may end whenever nobody renews it. What goes wrong is a fault, and each
kind of fault happens once at most in a run. A worker that stalls is one that takes no step.

Not part of it: what is behind another job of its key (`tests/integration/test_order_machine.py` has
a model of that), limits and breakers (likewise), taking back a replay, and erasure.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

T = TypeVar("T")

WAITING = ("pending", "retrying")
COUNTING = ("failed", "timed_out", "lost", "discarded")
"""Outcomes that spend one of a job's attempts."""

FAULTS = (
    "the receiver ends after its commit",
    "the sender sends again what was answered",
    "Redis forgets",
    "a message comes twice",
    "the processor raises",
    "the worker process ends",
    "the worker stalls past its lease",
    "PostgreSQL restarts",
    "the worker is told to end",
    "an operator pauses the processor",
    "an operator replays",
    "an operator discards",
)


class Job(NamedTuple):
    """What the row of a job says."""

    state: str
    trigger: str = "delivery"
    attempt: int = 0
    failures: int = 0
    is_due: bool = True
    """Waiting: its time has come."""
    is_parked: bool = False
    """Waiting: the relay does not look at it."""
    is_leased: bool = False
    """Running: the lease has not ended."""
    is_discarded: bool = False

    @property
    def waits(self) -> bool:
        """Return whether it waits for a worker."""
        return self.state in WAITING


class Event(NamedTuple):
    """An occurrence at the sender, and what is known of it."""

    sender: str = "sends"
    """`sends` until the delivery is stored, `listens` until the answer comes, then `told`."""
    stored: int = 0
    """Its deliveries in PostgreSQL."""
    unadmitted: int = 0
    """Those of them that are not admitted."""
    is_hinted: bool = False
    """Whether Redis has a message with its deliveries."""
    job: Job | None = None
    """None: it is not admitted, so there is no event."""
    is_job_hinted: bool = False
    """Whether Redis has a message with its job."""
    effects: int = 0
    """What was committed by its processor since it was last asked for."""
    kept: int = 0
    """Rows of attempts."""


class Worker(NamedTuple):
    """A process that runs one job at a time, and has not committed what the processor wrote."""

    event: int = -1
    """Whose job it runs; -1: none."""
    attempt: int = 0
    """The number that it was given when it claimed."""

    @property
    def is_idle(self) -> bool:
        """Return whether it runs no job."""
        return self.event < 0


IDLE = Worker()


class State(NamedTuple):
    """Everything at one moment."""

    events: tuple[Event, ...]
    workers: tuple[Worker, ...]
    is_paused: bool
    faults: int
    """Which faults may still happen: a bit for each of `FAULTS`."""
    left: int
    """How many of them may."""


class Attempt(NamedTuple):
    """A row of `attempts`, as far as the model knows it."""

    number: int
    trigger: str
    outcome: str


class Step(NamedTuple):
    """What somebody does, and what it leads to."""

    what: str
    by: int
    """Which worker; -1: somebody else."""
    event: int
    """Which event it is about; -1: none or all."""
    state: State
    kept: Attempt | None = None
    """The row of attempts that it writes."""
    is_fault: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The protocol's rules. Each of the booleans can be broken to see that something follows."""

    max_attempts: int = 2
    faults_end: bool = True
    """Whether each fault happens once at most."""
    answers_after_commit: bool = True
    admits_once: bool = True
    """Admission leaves an event alone that has its job."""
    relay_sweeps: bool = True
    """The relay hints at what nobody has, whatever Redis knew."""
    claims_what_waits: bool = True
    """A claim names the states that it expects."""
    finish_is_fenced: bool = True
    """Success commits if the attempt is still the one that runs."""
    effects_commit_with_success: bool = True
    failure_is_fenced: bool = True
    abandoned_are_taken_back: bool = True
    """The lease of a worker that is gone ends some day, or its crash record is found."""
    losses_are_kept: bool = True
    """Who takes back a job keeps its attempt."""
    replay_leaves_running: bool = True
    resume_unparks: bool = True


RULES = Rules()


def start(*, events: int = 2, workers: int = 2, faults: int = len(FAULTS)) -> State:
    """Return the first state: nothing has happened yet, and so many faults may, each once."""
    return State((Event(),) * events, (IDLE,) * workers, False, 2 ** len(FAULTS) - 1, faults)


def steps(state: State, rules: Rules = RULES) -> Iterator[Step]:
    """Return all that anybody may do next."""
    for number, event in enumerate(state.events):
        yield from _of_sender(state, number, event, rules)
        yield from _of_relay(state, number, event, rules)
        if event.job is not None:
            yield from _of_operator(state, number, event, event.job, rules)
            yield from _of_rescue(state, number, event, event.job, rules)
    for number, worker in enumerate(state.workers):
        if worker.is_idle:
            # Idle workers are alike, so the first of them acts.
            if number == state.workers.index(worker):
                yield from _of_idle_worker(state, number, rules)
        else:
            yield from _of_busy_worker(state, number, worker, rules)
    yield from _of_everybody(state, rules)


def _of_sender(state: State, number: int, event: Event, rules: Rules) -> Iterator[Step]:
    """Deliveries are stored and answered; who got no answer sends again."""
    one_more = event._replace(stored=event.stored + 1, unadmitted=event.unadmitted + 1)
    if event.sender == "sends":
        yield _moved("store", state, number, one_more._replace(sender="listens"))
        if not rules.answers_after_commit:
            yield _moved("answer", state, number, event._replace(sender="told"))
    if event.sender == "listens":
        yield _moved("answer", state, number, event._replace(sender="told"))
        fault = "the receiver ends after its commit"
        yield from _fault(fault, state, rules, number, event._replace(sender="sends"))
    if event.sender == "told" and event.stored:
        fault = "the sender sends again what was answered"
        yield from _fault(fault, state, rules, number, one_more)


def _of_relay(state: State, number: int, event: Event, rules: Rules) -> Iterator[Step]:
    """The receiver and the relay hint at deliveries, the relay at jobs; it parks and unparks."""
    is_first_hint = event.job is None and event.stored == 1 and event.sender == "listens"
    if event.unadmitted and not event.is_hinted and (rules.relay_sweeps or is_first_hint):
        yield _moved("hint at the delivery", state, number, event._replace(is_hinted=True))
    job = event.job
    if job is None or not job.waits:
        return
    if not job.is_due:
        yield _moved("time passes", state, number, event._replace(job=job._replace(is_due=True)))
    elif not state.is_paused and not job.is_parked and not event.is_job_hinted:
        yield _moved("hint at the job", state, number, event._replace(is_job_hinted=True))
    if job.is_due and state.is_paused and not job.is_parked:
        yield _moved("park", state, number, event._replace(job=job._replace(is_parked=True)))
    if job.is_parked and not state.is_paused and rules.resume_unparks:
        yield _moved("unpark", state, number, event._replace(job=job._replace(is_parked=False)))


def _of_operator(state: State, number: int, event: Event, job: Job, rules: Rules) -> Iterator[Step]:
    if job.state != "running" or not rules.replay_leaves_running:
        has_succeeded = job.state == "succeeded"
        again = Job("pending", trigger="replay", attempt=job.attempt)
        yield from _fault(
            "an operator replays",
            state,
            rules,
            number,
            event._replace(job=again, effects=0, kept=event.kept + has_succeeded),
            kept=Attempt(job.attempt, job.trigger, "succeeded") if has_succeeded else None,
        )
    if (job.waits or job.state == "dead") and not job.is_discarded:
        given_up = Job(
            "dead",
            trigger=job.trigger,
            attempt=job.attempt + 1,
            failures=job.failures,
            is_discarded=True,
        )
        yield from _fault(
            "an operator discards",
            state,
            rules,
            number,
            event._replace(job=given_up, kept=event.kept + 1),
            kept=Attempt(job.attempt + 1, job.trigger, "discarded"),
        )


def _of_rescue(state: State, number: int, event: Event, job: Job, rules: Rules) -> Iterator[Step]:
    """Jobs of workers that are gone, and those whose lease has ended, are taken back."""
    if job.state != "running":
        return
    is_abandoned = all(
        (worker.event, worker.attempt) != (number, job.attempt) for worker in state.workers
    )
    if job.is_leased:
        lapsed = event._replace(job=job._replace(is_leased=False))
        if not is_abandoned:
            yield from _fault("the worker stalls past its lease", state, rules, number, lapsed)
        elif rules.abandoned_are_taken_back:
            yield _moved("the lease ends", state, number, lapsed)
    if is_abandoned and rules.abandoned_are_taken_back:  # its crash record tells which job it ran
        yield _ended("find the crash", state, number, event, job, "lost", rules, rescued=True)
        yield _ended("find the crash", state, number, event, job, "released", rules, rescued=True)
    if not job.is_leased:
        outcome = "lost" if job.trigger == "rescue" else "released"
        yield _ended("take back", state, number, event, job, outcome, rules, rescued=True)


def _of_idle_worker(state: State, by: int, rules: Rules) -> Iterator[Step]:
    for number, event in enumerate(state.events):
        if event.is_hinted:
            yield from _admit(state, by, number, event, rules)
        job = event.job
        if job is not None and event.is_job_hinted:
            taken = event._replace(is_job_hinted=False)
            again = _may("a message comes twice", state, rules)
            if (job.waits and job.is_due and not state.is_paused) or not rules.claims_what_waits:
                yield _claimed("claim", state, by, number, taken, job)
                if again is not None:
                    step = _claimed("claim", again, by, number, event, job)
                    yield step._replace(is_fault=True)
            else:
                yield _moved("find nothing to claim", state, number, taken, by=by)


def _admit(state: State, by: int, number: int, event: Event, rules: Rules) -> Iterator[Step]:
    """All deliveries at once: the first makes the event and its job, the others are duplicates."""
    is_new = event.unadmitted and (event.job is None or not rules.admits_once)
    admitted = event._replace(is_hinted=False, unadmitted=0)
    if not is_new:
        yield _moved("admit", state, number, admitted, by=by)
        return
    yield _moved("admit", state, number, admitted._replace(job=Job("pending")), by=by)
    if not state.is_paused:
        yield _claimed("admit and claim", state, by, number, admitted, Job("pending"))


def _of_busy_worker(state: State, by: int, worker: Worker, rules: Rules) -> Iterator[Step]:
    """The processor has run: its effects and the job's success commit together, or neither does."""
    number, event = worker.event, state.events[worker.event]
    job = event.job
    assert job is not None
    is_ours = job.state == "running" and job.attempt == worker.attempt
    if is_ours or not rules.finish_is_fenced:
        succeeded = job._replace(state="succeeded", is_leased=False)
        done = event._replace(job=succeeded, effects=event.effects + 1)
        yield _moved("finish", state, number, done, by=by, idle=True)
    else:
        yield _moved("roll back", state, number, event, by=by, idle=True)
    if not rules.effects_commit_with_success and is_ours:
        half = event._replace(effects=event.effects + 1)
        yield _moved("commit the effects", state, number, half, by=by, idle=True)
    if is_ours or not rules.failure_is_fenced:
        for outcome in ("failed", "timed_out", "snoozed", "discarded"):
            yield from _own_end("the processor raises", state, by, outcome, rules)
        yield from _own_end("the worker is told to end", state, by, "released", rules)
    if is_ours and job.trigger in ("delivery", "replay"):
        back = job._replace(state="pending", attempt=job.attempt - 1, is_leased=False)
        yield _moved("give back", state, number, event._replace(job=back), by=by, idle=True)
    yield from _fault("the worker process ends", state, rules, number, event, by=by, idle=True)


def _own_end(fault: str, state: State, by: int, outcome: str, rules: Rules) -> Iterator[Step]:
    """A worker keeps an attempt that did not succeed."""
    worker = state.workers[by]
    event = state.events[worker.event]
    assert event.job is not None
    after = _may(fault, state, rules)
    if after is not None:
        idle = after._replace(workers=_with(after.workers, by, IDLE))
        yield _ended(
            fault, idle, worker.event, event, event.job, outcome, rules, by=by, is_fault=True
        )


def _of_everybody(state: State, rules: Rules) -> Iterator[Step]:
    after = _may("Redis forgets", state, rules)
    if after is not None:
        forgotten = [event._replace(is_hinted=False, is_job_hinted=False) for event in after.events]
        after = after._replace(events=tuple(forgotten))
        yield Step("Redis forgets", -1, -1, after, is_fault=True)
    after = _may("PostgreSQL restarts", state, rules)
    if after is not None:
        after = after._replace(workers=(IDLE,) * len(state.workers))
        yield Step("PostgreSQL restarts", -1, -1, after, is_fault=True)
    if state.is_paused:
        yield Step("resume", -1, -1, state._replace(is_paused=False))
    else:
        after = _may("an operator pauses the processor", state, rules)
        if after is not None:
            what = "an operator pauses the processor"
            yield Step(what, -1, -1, after._replace(is_paused=True), is_fault=True)


def _claimed(what: str, state: State, by: int, number: int, event: Event, job: Job) -> Step:
    running = job._replace(
        state="running", attempt=job.attempt + 1, is_due=True, is_parked=False, is_leased=True
    )
    workers = _with(state.workers, by, Worker(number, running.attempt))
    claimed = state._replace(workers=workers)
    return _moved(what, claimed, number, event._replace(job=running), by=by)


def _ended(
    what: str,
    state: State,
    number: int,
    event: Event,
    job: Job,
    outcome: str,
    rules: Rules,
    *,
    rescued: bool = False,
    by: int = -1,
    is_fault: bool = False,
) -> Step:
    """The attempt is kept, and the job waits for its next one, or is dead."""
    counts = outcome in COUNTING
    failures = job.failures + counts
    is_dead = outcome == "discarded" or (counts and failures >= rules.max_attempts)
    is_kept = rules.losses_are_kept or not rescued
    after = Job(
        "dead" if is_dead else "retrying",
        trigger=job.trigger if is_dead else "rescue" if rescued else "retry",
        attempt=job.attempt,
        failures=failures,
        is_due=is_dead or outcome == "released",
    )
    return _moved(
        what,
        state,
        number,
        event._replace(job=after, kept=event.kept + is_kept),
        by=by,
        kept=Attempt(job.attempt, job.trigger, outcome) if is_kept else None,
        is_fault=is_fault,
    )


def _fault(
    what: str,
    state: State,
    rules: Rules,
    number: int,
    event: Event,
    *,
    by: int = -1,
    idle: bool = False,
    kept: Attempt | None = None,
) -> Iterator[Step]:
    after = _may(what, state, rules)
    if after is not None:
        yield _moved(what, after, number, event, by=by, idle=idle, kept=kept, is_fault=True)


def _may(fault: str, state: State, rules: Rules) -> State | None:
    """Return the state with that fault spent; None: it has happened."""
    if not rules.faults_end:
        return state
    bit = 1 << FAULTS.index(fault)
    if not state.left or not state.faults & bit:
        return None
    left = state.left - 1
    return state._replace(faults=state.faults - bit if left else 0, left=left)


def _moved(
    what: str,
    state: State,
    number: int,
    event: Event,
    *,
    by: int = -1,
    idle: bool = False,
    kept: Attempt | None = None,
    is_fault: bool = False,
) -> Step:
    after = state._replace(events=_with(state.events, number, event))
    if idle:
        after = after._replace(workers=_with(after.workers, by, IDLE))
    return Step(what, by, number, after, kept, is_fault)


def _with(those: tuple[T, ...], position: int, one: T) -> tuple[T, ...]:
    return (*those[:position], one, *those[position + 1 :])
