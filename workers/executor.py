"""Running jobs: claim, run and finish, record failure.

Three transactions, each with one reason to exist:

1. claim, committed alone, so that a job that kills its process has spent an attempt;
2. run and finish (workers.batches): the processor's effects and `succeeded` together, fenced by the
   attempt number;
3. record failure, so that the evidence does not share the fate of the effects.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Engine

from ingest import logs
from ingest.sentry.start import Reports
from ingest.store.pipeline import breakers, jobs
from ingest.store.pipeline.jobs import (
    Claimant,
    ClaimedJob,
    Failure,
    JobRef,
    Outcome,
)
from workers import breaker
from workers.batch_size import BatchSizer, length_of_runs
from workers.batches import BatchRunner, Result
from workers.beside import Calls, Finisher, Starter, held
from workers.counts import Tally
from workers.key_reader import KeyReader
from workers.line import Lines
from workers.placer import Placer
from workers.recovery.leases import Leases
from workers.registry import Processor
from workers.shutdown import Shutdown
from workers.tracing.base import Traces

log = logs.logger(__name__)


class Ended(NamedTuple):
    """What claimed jobs came to, beside what is recorded of them."""

    woken: list[JobRef]
    """What was behind them, and may be claimed now."""
    behind: list[ClaimedJob]
    """Those of them that have not begun: one before them did not succeed."""
    was_broken: bool
    """Whether some ran again, apart from the others of their key."""


class Executor:
    """Claims and runs jobs, slice by slice."""

    def __init__(
        self,
        engine: Engine,
        slices: BatchRunner,
        *,
        worker: str,
        lease_s: float,
        keeper: Leases,
        clock: Callable[[], float],
        tally: Tally,
        shutdown: Shutdown,
        traces: Traces,
        reports: Reports,
        release: str | None = None,
        threads: Starter | None = None,
        coroutines: Starter | None = None,
    ) -> None:
        """`worker` names this process in the attempts, and `release` the application whose
        processors it runs; `clock` is monotonic, in seconds. Once `shutdown` has begun, nothing
        more is claimed. `threads` runs the processors that have several, `coroutines` those that
        are async."""
        self._engine = engine
        self._slices = slices
        self._worker = worker
        self._lease_s = lease_s
        self._keeper = keeper
        self._clock = clock
        self._tally = tally
        self._shutdown = shutdown
        self._traces = traces
        self._reports = reports
        self._release = release
        self._threads = threads
        self._coroutines = coroutines
        self._finisher = Finisher(engine, slices)
        self._pace = BatchSizer()
        keys = KeyReader(
            engine,
            slices,
            worker=worker,
            lease_s=lease_s,
            shutdown=shutdown,
            fitting=self._pace.fitting,
            tell=self._tell,
            release=release,
        )
        self._placer = Placer(engine, keys)
        self._lines = Lines(engine, keys, worker=worker, lease_s=lease_s)

    def run(
        self, processor: Processor, refs: Sequence[JobRef], *, until: float, apart: bool = False
    ) -> list[JobRef]:
        """Run those of `refs` that wait and are due, until the clock says `until`, but at least one
        slice: a message's other jobs may have used up its time.

        Return those that there was no time to claim. `apart` runs each in a slice of its own. With
        an order, `refs` are those that `place` returned, and what was behind them is run too. With
        limits, all enter the line, and what may start is run; then the first that still may is
        returned, so that another goes on.
        """
        waiting = deque(refs)
        if processor.limits:
            self._lines.enter(processor, refs)
            waiting, apart = deque([_of_line(processor)]), False
        if self._coroutines is not None and processor.is_async:
            most = 1 if apart else processor.in_flight
            return self._run_beside(
                self._coroutines, processor, waiting, until, most=most, apart=apart
            )
        if self._threads is not None and processor.threads > 1 and not apart:
            return self._run_beside(
                self._threads, processor, waiting, until, most=processor.threads, apart=apart
            )
        left: list[JobRef] = []
        has_begun = False
        while waiting and self._goes_on(until, has_begun=has_begun):
            has_begun = True
            size = 1 if apart else self._pace.batch_size(processor)
            claimed = self._claim(processor, waiting, size)
            if claimed:
                with self._keeper.holding(held(claimed)):
                    ended = self._work(processor, claimed)
                if processor.order and (ended.behind or ended.was_broken):
                    self._give_back(ended.behind, claimed)
                more, later = self._following(processor, ended.woken, apart=apart)
                waiting += more
                left += later
        return self._handed_back(processor, waiting, left)

    def place(self, processor: Processor, refs: Sequence[JobRef]) -> list[JobRef]:
        """Place jobs of a processor with an order: `refs`, whose keys are read now, and others
        whose keys were read before. Return those that may be claimed."""
        return self._placer.in_order(processor, refs)

    def unplaced(self, processors: Iterable[Processor]) -> list[Processor]:
        """Return those of `processors` with an order that have jobs to be placed."""
        ordered = [processor for processor in processors if processor.order]
        names = self._placer.unplaced() if ordered else set()
        return [processor for processor in ordered if processor.name in names]

    def _goes_on(self, until: float, *, has_begun: bool) -> bool:
        """Return whether to claim a slice. The first has all the time that it needs."""
        is_in_time = not has_begun or self._clock() < until
        return is_in_time and not self._shutdown.has_begun

    @property
    def claimant(self) -> Claimant:
        """Who claims, for jobs that are claimed as they are made."""
        return Claimant(worker=self._worker, lease_s=self._lease_s)

    def batch_size(self, processor: Processor) -> int:
        """Return how many jobs of `processor` to claim at once."""
        return self._pace.batch_size(processor)

    def run_claimed(self, groups: Sequence[tuple[Processor, Sequence[ClaimedJob]]]) -> None:
        """Run jobs that this worker holds already, a slice for each processor.

        Raises:
            Exception: the last that a slice raised, once the others have run.
        """
        problem: Exception | None = None
        for processor, claimed in groups:
            self._note_sizes(processor, claimed)
            try:
                self._work(processor, claimed)
            except Exception as error:
                problem = error
        if problem is not None:
            raise problem

    def holding(self, claimed: Sequence[ClaimedJob]) -> AbstractContextManager[None]:
        """Keep claimed jobs leased inside the block."""
        return self._keeper.holding(held(claimed))

    def _run_beside(
        self,
        starter: Starter,
        processor: Processor,
        waiting: deque[JobRef],
        until: float,
        *,
        most: int,
        apart: bool,
    ) -> list[JobRef]:
        """Keep up to `most` calls running. Their jobs are claimed when half of them have ended,
        several in one statement; one that takes its time holds up no other."""
        calls = Calls(
            starter, processor, keeper=self._keeper, finisher=self._finisher, record=self._record
        )
        left: list[JobRef] = []
        has_begun = False
        try:
            while (goes_on := waiting and self._goes_on(until, has_begun=has_begun)) or calls:
                fitting = most if processor.batch else min(most, self._pace.fitting(processor))
                free = fitting - len(calls)
                if goes_on and free >= fitting / 2:
                    has_begun = True
                    size = free if not processor.batch else self._pace.batch_size(processor)
                    claimed = self._claim(processor, waiting, 1 if apart else size, apart=not calls)
                    if processor.limits and any(job.trigger == "rescue" for job in claimed):
                        woken = self._run_rescued(calls, processor, claimed[0])
                        waiting += self._following(processor, woken, apart=False)[0]
                        continue
                    calls.start(claimed)
                if calls:
                    more, later = self._following(processor, calls.settle(), apart=apart)
                    waiting += more
                    left += later
        finally:
            calls.settle_all()
        return self._handed_back(processor, waiting, left)

    def _run_rescued(self, calls: Calls, processor: Processor, job: ClaimedJob) -> list[JobRef]:
        """Run a job that comes back from a lost process, while no other runs here; return what was
        behind it."""
        if processor.is_async:
            calls.start([job])
            return calls.settle()
        with self._keeper.holding(held([job])):
            return self._work(processor, [job]).woken

    def _following(
        self, processor: Processor, woken: Sequence[JobRef], *, apart: bool
    ) -> tuple[deque[JobRef], list[JobRef]]:
        """Return what may run once jobs have ended, and what is to be handed back."""
        if not processor.limits:
            return _parted(woken, apart=apart)
        if woken:
            self._lines.enter(processor, woken)
        return deque([_of_line(processor)]), []

    def _handed_back(
        self, processor: Processor, waiting: Iterable[JobRef], left: Iterable[JobRef]
    ) -> list[JobRef]:
        """Return jobs that there was no time for. What is in a line is safe there: one of it has
        another worker go on."""
        refs = [*waiting, *left]
        return self._lines.front(processor) if processor.limits and refs else refs

    def _claim(
        self, processor: Processor, waiting: deque[JobRef], size: int, *, apart: bool = True
    ) -> list[ClaimedJob]:
        """Claim up to `size` of the jobs that wait and, with an order, of what follows them; or of
        the line of a processor with limits. What there was no room for waits on.

        `apart` is whether it may be one that comes back from a lost process.
        """
        claimed = self._claim_next(processor, waiting, size, apart=apart)
        self._note_sizes(processor, claimed)
        return claimed

    def _note_sizes(self, processor: Processor, claimed: Sequence[ClaimedJob]) -> None:
        if claimed:
            self._pace.observe_sizes(processor, [len(job.body or b"") for job in claimed])

    def _claim_next(
        self, processor: Processor, waiting: deque[JobRef], size: int, *, apart: bool
    ) -> list[ClaimedJob]:
        if processor.limits:
            claimed = self._lines.pull(processor, at_most=size, may_be_apart=apart)
            if len(claimed) < size:  # no more may start, until something has ended
                waiting.clear()
            self._traces.claimed(self._engine, claimed)
            return claimed
        refs = _next(waiting, size)
        if processor.order:
            claimed, unseen = self._claim_ordered(processor, refs, size)
            waiting.extendleft(reversed(unseen))
            return claimed
        with self._engine.begin() as connection:
            claimed = jobs.claim(
                connection,
                [ref.id for ref in refs],
                worker=self._worker,
                lease_s=self._lease_s,
                max_attempts=processor.max_attempts,
            )
        self._traces.claimed(self._engine, claimed)
        return claimed

    def _claim_ordered(
        self, processor: Processor, refs: Sequence[JobRef], size: int
    ) -> tuple[list[ClaimedJob], list[JobRef]]:
        with self._engine.begin() as connection:
            runs = jobs.claim_ordered(
                connection,
                [ref.id for ref in refs],
                worker=self._worker,
                lease_s=self._lease_s,
                max_attempts=processor.max_attempts,
                limit=size,
                of_a_key=length_of_runs(processor, size=size, keys=len(refs)),
            )
        self._traces.claimed(self._engine, runs.jobs)
        claimed = {job.id for job in runs.jobs}
        others = [ref for ref in refs if ref.id not in claimed]
        if runs.is_full:
            return runs.jobs, others
        if others:
            self._placer.put_behind(others)
        return runs.jobs, []

    def _give_back(self, behind: Sequence[ClaimedJob], claimed: Sequence[ClaimedJob]) -> None:
        """Give back those of `claimed` that are behind one that did not succeed, and let others
        have the keys. Their leases are not renewed any more: their next claim has the same attempt
        number."""
        with self._engine.begin() as connection:
            keys = {job.key for job in claimed if job.key is not None}
            jobs.give_back(connection, held(behind), keys=sorted(keys))

    def _work(self, processor: Processor, claimed: Sequence[ClaimedJob]) -> Ended:
        """Run claimed jobs, and record how they ended.

        Raises:
            Exception: there is no database. What had failed before was recorded if that was
                possible.
        """
        started = self._clock()
        first = self._run_slice(processor, claimed)
        ended = Ended(first.woken, first.behind, was_broken=bool(first.again))
        stopped: set[UUID] = set()
        for job in first.again:
            if job.key in stopped:
                ended.behind.append(job)
                continue
            alone = self._run_slice(processor, [job])
            stopped |= alone.stopped
            ended.woken.extend(alone.woken)
        self._pace.observe(processor, len(claimed), self._clock() - started)
        return ended

    def _run_slice(self, processor: Processor, claimed: Sequence[ClaimedJob]) -> Result:
        result = self._slices.run(processor, claimed)
        self._record(processor, claimed, result.failures)
        if result.problem is not None:
            raise result.problem
        return result

    def _record(
        self, processor: Processor, claimed: Sequence[ClaimedJob], failures: Sequence[Failure]
    ) -> None:
        if not failures:
            return
        with self._engine.begin() as connection:
            failures = _judged(connection, processor, failures)
            recorded = jobs.fail(
                connection,
                failures,
                release=self._release,
                may_be_ordered=processor.order is not None,
            )
        self._tell(processor, claimed, failures, recorded)

    def _tell(
        self,
        processor: Processor,
        claimed: Sequence[ClaimedJob],
        failures: Sequence[Failure],
        recorded: Collection[int],
    ) -> None:
        """Tell everybody who wants to know of attempts that failed. The jobs `recorded` were still
        ours."""
        self._traces.failed(failures)
        self._reports.dead(
            self._engine, [failure for failure in failures if failure.id in recorded]
        )
        events = {job.id: str(job.event) for job in claimed}
        for failure in failures:
            if failure.id in recorded:
                self._tally.failed(processor.name, failure)
            log.warning(
                _what_happened(failure) if failure.id in recorded else "lease_lost",
                id=events[failure.id],
                job=failure.id,
                processor=processor.name,
                attempt=failure.attempt,
                outcome=str(failure.outcome),
                error_type=failure.error_type,
                retry_in_s=None if failure.retry_in_s is None else round(failure.retry_in_s, 3),
            )


def _judged(
    connection: Connection, processor: Processor, failures: Sequence[Failure]
) -> Sequence[Failure]:
    """Tell the processor's breaker, if it has one; return the failures as they are to be recorded:
    while it is open they spend nothing."""
    if processor.breaker is None:
        return failures
    recorded = breakers.record(connection, processor.breaker.of(processor.name), failures)
    if recorded.opened or recorded.closed:
        log.warning(
            "breaker_opened" if recorded.opened else "breaker_closed", processor=processor.name
        )
    return [
        breaker.not_counted(failure) if failure.id in recorded.uncounted else failure
        for failure in failures
    ]


def _what_happened(failure: Failure) -> str:
    return "attempt_released" if failure.outcome is Outcome.RELEASED else "attempt_failed"


def _parted(refs: Iterable[JobRef], *, apart: bool) -> tuple[deque[JobRef], list[JobRef]]:
    """Return the jobs that may run here, and those that come back from a lost process, unless all
    run apart here: those are handed back."""
    parts: tuple[deque[JobRef], list[JobRef]] = (deque(), [])
    for ref in refs:
        parts[ref.trigger == "rescue" and not apart].append(ref)
    return parts


def _of_line(processor: Processor) -> JobRef:
    """Return what stands for the jobs in the line of a processor with limits."""
    return JobRef(id=0, processor=processor.name, queue=processor.queue, trigger="delivery")


def _next(waiting: deque[JobRef], size: int) -> list[JobRef]:
    return [waiting.popleft() for _ in range(min(size, len(waiting)))]
