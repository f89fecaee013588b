"""Running jobs: claim, run and finish, record failure.

Three transactions, each with one reason to exist:

1. claim, committed alone, so that a job that kills its process has spent an attempt;
2. run and finish (workers.batches): the processor's effects and `succeeded` together, fenced by the
   attempt number;
3. record failure, so that the evidence does not share the fate of the effects.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager

from sqlalchemy import Engine

from ingest import logs
from ingest.sentry.start import Reports
from ingest.store.pipeline import jobs
from ingest.store.pipeline.jobs import (
    Claimant,
    ClaimedJob,
    Failure,
    JobRef,
    Lease,
    Outcome,
)
from workers.batch_size import BatchSizer
from workers.batches import BatchRunner, Result
from workers.counts import Tally
from workers.key_reader import KeyReader
from workers.line import Lines
from workers.placer import Placer
from workers.recovery.leases import Leases
from workers.registry import Processor
from workers.shutdown import Shutdown
from workers.timeouts.threads import Threads
from workers.tracing.base import Traces

_LOOK_S = 1.0
"""How often a thread that waits for others looks whether it was sent a signal."""

log = logs.logger(__name__)


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
        threads: Threads | None = None,
    ) -> None:
        """`worker` names this process in the attempts, and `release` the application whose
        processors it runs; `clock` is monotonic, in seconds. Once `shutdown` has begun, nothing
        more is claimed."""
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
        self._pace = BatchSizer()
        keys = KeyReader(engine, slices, worker=worker, lease_s=lease_s, release=release)
        self._placer = Placer(engine, keys)
        self._lines = Lines(engine, keys, worker=worker, lease_s=lease_s)

    def run(
        self, processor: Processor, refs: Sequence[JobRef], *, until: float, apart: bool = False
    ) -> list[JobRef]:
        """Run those of `refs` that wait and are due, until the clock says `until`.

        Return those that there was no time to claim. `apart` runs each in a slice of its own. With
        an order, those that are the first of their key are run, and then what was behind them. With
        limits, all enter the line, and what may start is run; then the first that still may is
        returned, so that another goes on.
        """
        waiting, left = deque(refs), list[JobRef]()
        if processor.order:
            waiting, left = _parted(self._placer.in_order(processor, refs), apart=apart)
        if processor.limits:
            self._lines.enter(processor, [*waiting, *left])
            waiting, left, apart = deque([_of_line(processor)]), [], False
        if self._threads is not None and processor.threads > 1 and not apart:
            return self._run_on(self._threads, processor, waiting, until) + left
        while waiting and self._goes_on(until):
            size = 1 if apart else self._pace.batch_size(processor)
            claimed = self._claim(processor, waiting, size)
            if claimed:
                with self._keeper.holding(_held(claimed)):
                    woken = self._work(processor, claimed)
                more, later = self._following(processor, woken, apart=apart)
                waiting += more
                left += later
        return self._handed_back(processor, waiting, left)

    def place(self, processor: Processor) -> list[JobRef]:
        """Place jobs of a processor with an order whose keys are read; return those that may be
        claimed."""
        return self._placer.in_order(processor, [])

    def unplaced(self, processors: Iterable[Processor]) -> list[Processor]:
        """Return those of `processors` with an order that have jobs to be placed."""
        ordered = [processor for processor in processors if processor.order]
        names = self._placer.unplaced() if ordered else set()
        return [processor for processor in ordered if processor.name in names]

    def _goes_on(self, until: float) -> bool:
        return self._clock() < until and not self._shutdown.has_begun

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
            try:
                self._work(processor, claimed)
            except Exception as error:
                problem = error
        if problem is not None:
            raise problem

    def holding(self, claimed: Sequence[ClaimedJob]) -> AbstractContextManager[None]:
        """Keep claimed jobs leased inside the block."""
        return self._keeper.holding(_held(claimed))

    def _run_on(
        self,
        threads: Threads,
        processor: Processor,
        waiting: deque[JobRef],
        until: float,
    ) -> list[JobRef]:
        """Keep up to `processor.threads` jobs running. They are claimed when half of the threads
        are free, several in one statement; one that takes its time holds up no other."""
        running: dict[Future[Result], ClaimedJob] = {}
        left: list[JobRef] = []
        try:
            while (goes_on := waiting and self._goes_on(until)) or running:
                free = processor.threads - len(running)
                if goes_on and free >= processor.threads / 2:
                    claimed = self._claim(processor, waiting, free, apart=not running)
                    if any(job.trigger == "rescue" for job in claimed):  # by itself, of a line
                        with self._keeper.holding(_held(claimed)):
                            woken = self._work(processor, claimed)
                        waiting += self._following(processor, woken, apart=False)[0]
                        continue
                    for job in claimed:
                        running[threads.start(processor, job)] = job
                if running:
                    woken = self._settle(processor, running)
                    more, later = self._following(processor, woken, apart=False)
                    waiting += more
                    left += later
        finally:
            while running:  # after an error too: how the others ended is not to be lost
                try:
                    self._settle(processor, running)
                except Exception as error:
                    log.warning("another_failed", processor=processor.name, exc_info=error)
        return self._handed_back(processor, waiting, left)

    def _settle(
        self, processor: Processor, running: dict[Future[Result], ClaimedJob]
    ) -> list[JobRef]:
        """Wait for the next of `running` and record how they ended that have; return what was
        behind them.

        Raises:
            Exception: the first that a thread raised, once the others' ends are recorded.
        """
        ended: set[Future[Result]] = set()
        while not ended:  # a signal that another thread got is heeded once this one wakes up
            ended = wait(running, timeout=_LOOK_S, return_when=FIRST_COMPLETED).done
        jobs_ended = [running.pop(future) for future in ended]
        errors = [error for future in ended if (error := future.exception()) is not None]
        results = [future.result() for future in ended if future.exception() is None]
        self._record(
            processor, jobs_ended, [failure for result in results for failure in result.failures]
        )
        if errors:
            raise errors[0]
        return [ref for result in results for ref in result.woken]

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
        """Claim up to `size` of the jobs that wait, or of the line of a processor with limits.

        `apart` is whether it may be one that comes back from a lost process.
        """
        if processor.limits:
            claimed = self._lines.pull(processor, at_most=size, may_be_apart=apart)
            if len(claimed) < size:  # no more may start, until something has ended
                waiting.clear()
            self._traces.claimed(self._engine, claimed)
            return claimed
        refs = _next(waiting, size)
        claim = jobs.claim_ordered if processor.order else jobs.claim
        with self._engine.begin() as connection:
            claimed = claim(
                connection,
                [ref.id for ref in refs],
                worker=self._worker,
                lease_s=self._lease_s,
                max_attempts=processor.max_attempts,
            )
        self._traces.claimed(self._engine, claimed)
        if processor.order and len(claimed) < len(refs):
            self._placer.put_behind(refs)
        return claimed

    def _work(self, processor: Processor, claimed: Sequence[ClaimedJob]) -> list[JobRef]:
        """Run claimed jobs, and record how they ended; return what was behind them."""
        started = self._clock()
        results = [self._slices.run(processor, claimed)]
        self._record(processor, claimed, results[0].failures)
        for job in results[0].again:
            results.append(self._slices.run(processor, [job]))
            self._record(processor, claimed, results[-1].failures)
        self._pace.observe(processor, len(claimed), self._clock() - started)
        return [ref for result in results for ref in result.woken]

    def _record(
        self, processor: Processor, claimed: Sequence[ClaimedJob], failures: Sequence[Failure]
    ) -> None:
        if not failures:
            return
        with self._engine.begin() as connection:
            recorded = jobs.fail(
                connection,
                failures,
                release=self._release,
                may_be_ordered=processor.order is not None,
            )
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


def _held(claimed: Sequence[ClaimedJob]) -> list[Lease]:
    return [Lease(id=job.id, attempt=job.attempt) for job in claimed]
