"""Taking jobs from the line of a processor with limits: as many as are allowed, in fair shares.

All of it happens in the caller's transaction, under the lock of the limits' row. So what is counted
is exact, with any number of workers.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from ingest.rates import Log
from ingest.store.pipeline import jobs, limited_line, limits
from ingest.store.pipeline.jobs import ClaimedJob, JobRef
from ingest.store.pipeline.limited_line import SHARED, Candidate, Key, KeyState, Line
from ingest.store.pipeline.limits import Bounds, DeclaredLimits

IN_LINE_S = 3_600.0
"""For so long the relay takes for granted that a job is in the line. Then it has a worker look, so
that what was lost comes back."""
_ROUNDS = 20
_MOST_LOOKED_AT = 1_000
"""Jobs that a round looks at, where many have left the line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claiming:
    """How a worker claims jobs of a processor."""

    worker: str
    lease_s: float
    max_attempts: int
    is_ordered: bool = False


def allowed(bounds: Bounds, log: Log, *, running: int, now: float, at_most: int) -> int:
    """Return how many jobs of a processor may start now."""
    if bounds.concurrency is not None:
        at_most = min(at_most, bounds.concurrency - running)
    if bounds.rate is not None:
        at_most = min(at_most, bounds.rate.allowed(log, now))
    return max(0, at_most)


def enter(
    connection: Connection, declared: DeclaredLimits, entries: Sequence[tuple[int, UUID | None]]
) -> None:
    """Put jobs that wait and are due into the line, each with its key; None: it was not read,
    because the job was in the line or did not wait.

    What is in it keeps its place. The relay leaves alone for a while what is in the line by then,
    but for the probe of an open breaker: nothing else has a worker look at that line.
    """
    line = _lock(connection, declared)
    limited_line.tidy(connection, line)
    waiting = limited_line.enter(connection, line, entries)
    known = [job for job in waiting if not (line.is_broken and job == line.probe)]
    jobs.presume_known(connection, known, for_s=IN_LINE_S)


def pull(
    connection: Connection,
    declared: DeclaredLimits,
    *,
    at_most: int,
    claiming: Claiming,
    may_be_apart: bool = True,
) -> list[ClaimedJob]:
    """Claim the next jobs of a line, as many as are allowed to start now.

    A job that comes back from a lost process is claimed by itself, and not at all if `may_be_apart`
    is False.
    """
    line = _lock(connection, declared)
    if line.is_paused:
        return []
    if line.is_broken:
        return _probe(connection, line, claiming) if at_most else []
    look = _Look(connection, line, at_most, claiming, may_be_apart=may_be_apart)
    look.go()
    return look.claimed


def front(connection: Connection, processor: str, *, at_most: int) -> list[JobRef]:
    """Return the first jobs of a line, as many as are allowed to start now; none is claimed.

    What does not wait any more leaves the line.
    """
    line = limited_line.lock(connection, processor)
    if line is None or line.is_paused or line.is_broken:
        return []
    look = _Look(connection, line, at_most, None, may_be_apart=True)
    look.go()
    return look.front


def _lock(connection: Connection, declared: DeclaredLimits) -> Line:
    line = limited_line.lock(connection, declared.processor)
    if line is None:
        limits.register_once(connection, declared)
        line = limited_line.lock(connection, declared.processor)
    assert line is not None
    return line


def _probe(connection: Connection, line: Line, claiming: Claiming) -> list[ClaimedJob]:
    """Claim the probe of a processor whose breaker is open, whosever turn it is, if it waits in the
    line and the limits allow it, those of its key too."""
    running, now = limited_line.tidy(connection, line)
    if line.probe is None or not allowed(
        line.bounds, line.log, running=running, now=now, at_most=1
    ):
        return []
    key = limited_line.key_of(connection, line, line.probe)
    if key is None or not _budget(line.bounds, key, wanted=1, now=now):
        return []
    claimed = _claim(connection, claiming, [line.probe])
    if claimed:
        limited_line.mark(connection, [line.probe], [])
        limited_line.keep(connection, line, [_state(line.bounds, key, starts=1, now=now)])
        log = line.bounds.rate.noted(line.log, now, 1) if line.bounds.rate else line.log
        limited_line.advance(connection, line, turn=line.turn, log=log)
    return claimed


def _claim(connection: Connection, claiming: Claiming, job_ids: Sequence[int]) -> list[ClaimedJob]:
    if claiming.is_ordered:
        return jobs.claim_ordered(
            connection,
            job_ids,
            worker=claiming.worker,
            lease_s=claiming.lease_s,
            max_attempts=claiming.max_attempts,
            limit=len(job_ids),
        ).jobs
    return jobs.claim(
        connection,
        job_ids,
        worker=claiming.worker,
        lease_s=claiming.lease_s,
        max_attempts=claiming.max_attempts,
    )


class _Next(NamedTuple):
    """A job whose turn it is."""

    turn: int
    key: UUID
    ref: JobRef


class _Look:
    """A look at a locked line, in rounds: one may find that jobs have left the line, or that keys
    are at a limit of theirs."""

    def __init__(
        self,
        connection: Connection,
        line: Line,
        at_most: int,
        claiming: Claiming | None,
        *,
        may_be_apart: bool,
    ) -> None:
        """`claiming` None: the jobs are only named."""
        self._connection = connection
        self._line = line
        self._claiming = claiming
        self._may_be_apart = may_be_apart
        running, self._now = limited_line.tidy(connection, line)
        self._wanted = allowed(
            line.bounds, line.log, running=running, now=self._now, at_most=at_most
        )
        self._turn = line.turn
        self._missed: set[int] = set()
        self.claimed: list[ClaimedJob] = []
        self.front: list[JobRef] = []

    def go(self) -> None:
        """Claim or name as many jobs as are wanted, if there are so many."""
        deep = 0
        for _ in range(_ROUNDS):
            if len(self.claimed) >= self._wanted or not self._round(deep):
                break
            deep = min(max(4 * deep, self._wanted), _MOST_LOOKED_AT)
        if self.claimed:
            rate = self._line.bounds.rate
            log = self._line.log
            if rate is not None:
                log = rate.noted(log, self._now, len(self.claimed))
            limited_line.advance(self._connection, self._line, turn=self._turn, log=log)

    def _round(self, deep: int) -> bool:
        """Look at the next jobs, at `deep` at least; return whether to look again."""
        wanted = self._wanted - len(self.claimed)
        keys = limited_line.ready(self._connection, self._line, limit=wanted)
        if not keys:
            return False
        bounds, now = self._line.bounds, self._now
        budgets = {key.key: _budget(bounds, key, wanted=wanted, now=now) for key in keys}
        numbers = _numbers(keys, budgets, wanted=wanted, deep=deep)
        candidates = limited_line.candidates(self._connection, self._line, numbers)
        following = _in_turn(
            keys, budgets, [one for one in candidates if self._may_start(one)], wanted
        )
        if self._claiming is None:
            self.front = [job.ref for job in following]
            started, is_cut = [], bool(following)
        else:
            following, is_cut = _parted(following, is_first=not self.claimed)
            started = self._claim(self._claiming, following)
        gone = {one.ref.id: one.key for one in candidates if not one.is_due}
        if self._claiming is not None and self._claiming.is_ordered:
            gone |= self._behind(following, started)
        # Nothing waits of a key where a release before has claimed its last job as a probe.
        empty = {key for key, _ in numbers} - {one.key for one in candidates}
        passed = empty | {key for key, most in budgets.items() if most <= 0}
        self._settle(keys, passed, started, gone)
        return not is_cut and bool(started or gone or passed)

    def _may_start(self, one: Candidate) -> bool:
        is_apart = one.ref.trigger == "rescue" and not self._may_be_apart
        return one.is_due and not is_apart and one.ref.id not in self._missed

    def _claim(self, claiming: Claiming, following: Sequence[_Next]) -> list[_Next]:
        """Claim jobs; return those that could be."""
        claimed = _claim(self._connection, claiming, [job.ref.id for job in following])
        self.claimed += claimed
        ids = {job.id for job in claimed}
        self._missed |= {job.ref.id for job in following} - ids
        return [job for job in following if job.ref.id in ids]

    def _behind(self, following: Sequence[_Next], started: Sequence[_Next]) -> dict[int, UUID]:
        """Put jobs behind those of their ordering key that are ahead of them."""
        ids = {job.ref.id for job in started}
        behind = {job.ref.id: job.key for job in following if job.ref.id not in ids}
        if behind:
            jobs.put_behind(self._connection, sorted(behind))
        return behind

    def _settle(
        self,
        keys: Sequence[Key],
        passed: Set[UUID],
        started: Sequence[_Next],
        gone: Mapping[int, UUID],
    ) -> None:
        """Note what was started, what has left the line, and how its keys are now. `passed` are
        those of which nothing may start, or nothing waits."""
        if started or gone:
            limited_line.mark(self._connection, [job.ref.id for job in started], list(gone))
        if gone:
            jobs.forget_hint(self._connection, sorted(gone))
        starts = Counter(job.key for job in started)
        touched = {*starts, *gone.values(), *passed}
        states = [
            _state(self._line.bounds, key, starts=starts[key.key], now=self._now)
            for key in keys
            if key.key in touched
        ]
        if states:
            limited_line.keep(self._connection, self._line, states)
        self._turn = max([self._turn, *(job.turn for job in started)])


def _budget(bounds: Bounds, key: Key, *, wanted: int, now: float) -> int:
    """Return how many jobs of a key may start now, by its own limits; `wanted` at most."""
    if key.key in SHARED:
        return wanted
    budget = wanted
    if bounds.key_concurrency is not None:
        budget = min(budget, bounds.key_concurrency - key.running)
    if bounds.key_rate is not None:
        budget = min(budget, bounds.key_rate.allowed(key.log, now))
    return max(0, budget)


def _state(bounds: Bounds, key: Key, *, starts: int, now: float) -> KeyState:
    """Return a key as it is once so many jobs of it were started."""
    turn = key.turn + starts
    if key.key in SHARED:
        return KeyState(key.key, turn, None, None, ())
    most, rate = bounds.key_concurrency, bounds.key_rate
    log = rate.noted(key.log, now, starts) if rate else key.log
    held_until = rate.next_at(log, now) if rate else now
    if most is not None and key.running + starts >= most:
        held_until = math.inf
    return KeyState(
        key=key.key,
        turn=turn,
        held_until=held_until if held_until > now else None,
        idle_until=log[-1][0] + rate.window_s if rate and log else None,
        log=log,
    )


def _numbers(
    keys: Sequence[Key], budgets: Mapping[UUID, int], *, wanted: int, deep: int
) -> list[tuple[UUID, int]]:
    """Return how many jobs of each key to look at: as many as it may start, and `deep` of all.

    With as many keys as jobs are wanted, no job is among them whose turn is after that of the last
    key.
    """
    last = keys[-1].turn if len(keys) == wanted else math.inf
    return [
        (key.key, int(max(min(budgets[key.key], last - key.turn + 1), deep // len(keys))))
        for key in keys
        if budgets[key.key] > 0
    ]


def _in_turn(
    keys: Sequence[Key],
    budgets: Mapping[UUID, int],
    candidates: Sequence[Candidate],
    wanted: int,
) -> list[_Next]:
    """Return the jobs to start, by their turns: each of a key has one turn after the one before."""
    turns = {key.key: key.turn for key in keys}
    taken: Counter[UUID] = Counter()
    following: list[_Next] = []
    for one in candidates:
        if taken[one.key] < budgets[one.key]:
            following.append(_Next(turns[one.key] + taken[one.key], one.key, one.ref))
            taken[one.key] += 1
    return sorted(following, key=lambda job: job.turn)[:wanted]


def _parted(following: Sequence[_Next], *, is_first: bool) -> tuple[list[_Next], bool]:
    """Return the jobs that may be claimed together, and whether others are left for later: one that
    comes back from a lost process is claimed by itself."""
    for place, job in enumerate(following):
        if job.ref.trigger == "rescue":
            return list(following[:1] if place == 0 and is_first else following[:place]), True
    return list(following), False
