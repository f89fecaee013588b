"""Jobs and their attempts in plain Python, from the design's rules alone, and what is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from ingest.store.pipeline.jobs import Failure, Lease, NewJobs, Outcome

LATER_S = 10_000.0
WORKERS = ("a", "b")
PROCESSORS = {
    "orders": NewJobs(type="order.created", processor="orders", queue="events", max_attempts=3),
    "notify": NewJobs(type="order.created", processor="notify", queue="slow", max_attempts=5),
}
MOVES = {
    ("pending", "running"),
    ("retrying", "running"),
    ("running", "succeeded"),
    ("running", "retrying"),
    ("running", "dead"),
}
"""The arrows that are no replay's and no discard's."""
DISCARDABLE = ("pending", "retrying", "dead")

ALL = 2**16 - 1
choices = st.sampled_from([ALL, ALL, 0x5555, 0xAAAA, 1, 2, 4, 8]) | st.integers(0, ALL)
"""Which of those that there are: a bit each."""
waits = st.sampled_from([0.0, LATER_S])
endings = st.sampled_from(
    [
        (Outcome.FAILED, 0.0, False),
        (Outcome.FAILED, LATER_S, False),
        (Outcome.FAILED, None, False),
        (Outcome.DISCARDED, None, False),
        (Outcome.SNOOZED, 0.0, False),
        (Outcome.SNOOZED, LATER_S, False),
        (Outcome.TIMED_OUT, 0.0, False),
        (Outcome.LOST, 0.0, True),
        (Outcome.LOST, None, True),
        (Outcome.RELEASED, 0.0, True),
    ]
)
some_processors = st.lists(st.sampled_from(sorted(PROCESSORS)), unique=True)

Row = dict[str, Any]
Ending = tuple[Outcome, float | None, bool]
"""How an attempt ends, in how many seconds the next one is due, and whether a rescuer says so."""


def chosen(those: Sequence[Any], choice: int) -> list[Any]:
    """A subset: those whose bit is set."""
    return [each for position, each in enumerate(those) if choice >> position % 16 & 1]


WAITING = ("pending", "retrying")
COUNTING = ("failed", "discarded", "timed_out", "lost")
"""Outcomes that spend one of a job's attempts."""


@dataclass(kw_only=True)
class Attempt:
    """An attempt that ended."""

    trigger: str
    worker: str | None
    outcome: str
    replay: int | None


@dataclass(kw_only=True)
class Before:
    """What a job was that a replay has requeued."""

    state: str
    trigger: str
    failures: int
    queue: str
    replay: int | None
    is_due: bool
    is_discarded: bool


@dataclass(kw_only=True)
class Job:
    """One event for one processor."""

    event: UUID
    processor: str
    queue: str
    trigger: str
    max_attempts: int
    replay: int | None
    state: str = "pending"
    attempt: int = 0
    failures: int = 0
    worker: str | None = None
    is_due: bool = True
    """Waiting: its time has come."""
    is_hinted: bool = False
    """Waiting: Redis is presumed to know."""
    is_parked: bool = False
    """Waiting: put aside, as its processor is or was paused."""
    is_leased: bool = False
    """Running: the lease holds."""
    is_discarded: bool = False
    """Dead: an operator wants it no more."""
    before: "Before | None" = None
    """Pending: what it was before a replay requeued it."""
    ended: dict[int, Attempt] = field(default_factory=dict)

    @property
    def waits(self) -> bool:
        return self.state in WAITING

    @property
    def is_claimable(self) -> bool:
        return self.waits and self.is_due

    @property
    def is_unhinted(self) -> bool:
        """Whether the relay is to do something about it."""
        return self.is_claimable and not self.is_hinted and not self.is_parked

    @property
    def is_expired(self) -> bool:
        return self.state == "running" and not self.is_leased

    def is_held(self, attempt: int) -> bool:
        """Whether that attempt is the one that runs."""
        return self.state == "running" and self.attempt == attempt

    def claim(self, worker: str, max_attempts: int) -> None:
        self.state, self.attempt = "running", self.attempt + 1
        self.worker, self.max_attempts = worker, max_attempts
        self.is_leased, self.is_due, self.is_hinted, self.is_parked = True, False, False, False

    def finish(self) -> None:
        self.state, self.is_leased = "succeeded", False

    def fail(self, outcome: str, retry_in_s: float | None, *, rescued: bool) -> None:
        self._end(outcome)
        self.failures += outcome in COUNTING
        self.state = "dead" if retry_in_s is None else "retrying"
        if retry_in_s is not None:
            self.trigger = "rescue" if rescued else "retry"
            self.is_due = retry_in_s == 0

    @property
    def waits_for_a_replay(self) -> bool:
        """Whether a replay requeued it, and no worker has had it since."""
        return self.state == "pending" and self.before is not None

    def requeue(self, replay: int, queue: str, delay_s: float) -> None:
        if not self.waits_for_a_replay:
            self.before = Before(
                state=self.state,
                trigger=self.trigger,
                failures=self.failures,
                queue=self.queue,
                replay=self.replay,
                is_due=self.is_due,
                is_discarded=self.is_discarded,
            )
        if self.state == "succeeded":
            self._end("succeeded")
        self.state, self.trigger, self.failures = "pending", "replay", 0
        self.replay, self.queue = replay, queue
        self.is_due, self.is_hinted, self.is_parked = delay_s == 0, False, False
        self.is_discarded = False

    def take_back(self) -> None:
        assert self.before is not None
        if self.before.state == "succeeded":
            del self.ended[self.attempt]
        vars(self).update(vars(self.before))
        self.is_hinted = self.is_parked = False
        self.before = None

    @property
    def is_discardable(self) -> bool:
        return self.state in DISCARDABLE and not self.is_discarded

    def discard(self, replay: int | None) -> None:
        """An attempt that nobody made, so that it stands in its place."""
        self.state, self.attempt, self.is_discarded = "dead", self.attempt + 1, True
        self.replay = self.replay if replay is None else replay
        self.is_due, self.is_hinted, self.is_parked = False, False, False
        self.ended[self.attempt] = Attempt(
            trigger=self.trigger, worker=None, outcome="discarded", replay=replay
        )

    def run_now(self) -> None:
        self.is_due, self.is_hinted, self.is_parked = True, False, False

    def _end(self, outcome: str) -> None:
        self.is_leased = False
        self.ended[self.attempt] = Attempt(
            trigger=self.trigger, worker=self.worker, outcome=outcome, replay=self.replay
        )


def events_of(
    known: dict[str, UUID], deliveries: Sequence[UUID], names: Sequence[str]
) -> tuple[dict[UUID, UUID], set[UUID]]:
    """Which event each delivery is of, and which of these events are new; the first delivery of a
    name is its event."""
    event_of: dict[UUID, UUID] = {}
    fresh: set[UUID] = set()
    for delivery, name in sorted(zip(deliveries, names, strict=True)):
        if name not in known:
            known[name] = delivery
            fresh.add(delivery)
        event_of[delivery] = known[name]
    return event_of, fresh


def failures(held: Sequence[Lease], ending: Ending) -> list[Failure]:
    outcome, retry_in_s, rescued = ending
    return [
        Failure(
            id=each.id,
            attempt=each.attempt,
            outcome=outcome,
            retry_in_s=retry_in_s,
            rescued=rescued,
            error_type="E",
            error_message=f"attempt {each.attempt}",
        )
        for each in held
    ]


def as_row(job: Job) -> Row:
    return {
        "event": job.event,
        "processor": job.processor,
        "queue": job.queue,
        "state": job.state,
        "trigger": job.trigger,
        "attempt": job.attempt,
        "failures": job.failures,
        "max_attempts": job.max_attempts,
        "worker": job.worker,
        "replay": job.replay,
        "is_due": job.is_claimable,
        "is_hinted": job.waits and (job.is_hinted or job.is_parked),
        "is_parked": job.is_parked,
        "is_leased": job.is_leased,
        "is_discarded": job.is_discarded,
    }


def check_columns(row: Row) -> None:
    state = row["state"]
    assert (row["next_attempt_at"] is not None) == (state in ("pending", "retrying"))
    assert (row["lease_until"] is not None) == (state == "running")
    assert (row["finished_at"] is not None) == (state in ("succeeded", "dead"))
    assert (row["started_at"] is not None) == (row["worker"] is not None) <= (row["attempt"] > 0)
    assert row["discarded_at"] is None or state == "dead"
    if state in ("running", "succeeded", "dead"):
        assert row["due_at"] is row["hinted_until"] is None
    else:
        assert row["due_at"] == max(
            row["next_attempt_at"], row["hinted_until"] or row["next_attempt_at"]
        )


def check_history(row: Row, numbers: list[int]) -> None:
    """One row an attempt that ended, except for the success that the job stands on."""
    open_ended = row["state"] in ("running", "succeeded")
    assert numbers == list(range(1, row["attempt"] + (not open_ended)))
    assert row["failures"] <= len(numbers)


def check_move(before: Row, row: Row, *, by_replay: bool, by_taking_back: bool = False) -> None:
    assert row["attempt"] >= before["attempt"]
    if by_taking_back and row["requeued_from"] != before["requeued_from"]:
        was = before["requeued_from"]
        assert (before["state"], row["attempt"]) == ("pending", before["attempt"])
        assert was["by"] == before["replay"] != row["replay"]
        assert {name: row[name] for name in was if name != "by"} == {
            name: value for name, value in was.items() if name != "by"
        }
        return
    if by_replay and row["replay"] != before["replay"]:
        assert before["state"] != "running"
        assert (row["state"], row["failures"], row["discarded_at"]) == ("pending", 0, None)
        return
    assert row["failures"] >= before["failures"]
    if row["discarded_at"] != before["discarded_at"]:
        assert (before["discarded_at"], row["state"]) == (None, "dead")
        assert before["state"] in DISCARDABLE
        assert (row["attempt"], row["failures"]) == (before["attempt"] + 1, before["failures"])
        return
    assert row["replay"] == before["replay"]
    if row["state"] != before["state"]:
        assert (before["state"], row["state"]) in MOVES
        claims = row["state"] == "running"
        assert row["attempt"] == before["attempt"] + claims


JOBS = """
    SELECT id, event, processor, queue, state, trigger, attempt, failures, max_attempts, worker,
           replay,
           coalesce(next_attempt_at <= now(), false) AS is_due,
           coalesce(hinted_until > now(), false) AS is_hinted,
           coalesce(hinted_until = 'infinity', false) AS is_parked,
           coalesce(lease_until > now(), false) AS is_leased,
           discarded_at IS NOT NULL AS is_discarded
    FROM jobs
"""
ROWS = "SELECT to_jsonb(jobs) AS job FROM jobs"
"""All of them; times as texts that are ordered as they are, `infinity` the last of them."""
ATTEMPTS = "SELECT job, number, trigger, worker, outcome, replay FROM attempts"
WITH_ATTEMPTS = """
    SELECT to_jsonb(jobs) AS job, (SELECT count(*) FROM attempts WHERE job = jobs.id) AS attempts
    FROM jobs WHERE id = ANY(:ids) ORDER BY id
"""
