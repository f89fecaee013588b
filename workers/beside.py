"""Calls of one processor that run beside each other, on threads or on an event loop.

Each call's jobs are leased until its end is recorded, so one that takes its time holds up no other.
"""

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import NamedTuple, Protocol

from sqlalchemy import Connection, Engine

from ingest import logs
from ingest.errors import LeaseLost
from ingest.store.pipeline import breakers, jobs
from ingest.store.pipeline.breaker_state import Sign
from ingest.store.pipeline.jobs import ClaimedJob, Failure, JobRef, Lease
from ingest.store.pipeline.metrics import Note
from workers import breaker
from workers.batches import BatchRunner, Result, Returned, durations, notes_of
from workers.recovery.leases import Leases
from workers.registry import Processor

_LOOK_S = 1.0
"""How often a thread that waits for others looks whether it was sent a signal."""

log = logs.logger(__name__)

Record = Callable[[Processor, Sequence[ClaimedJob], Sequence[Failure]], None]
"""Records how claimed jobs of a processor failed."""


class Starter(Protocol):
    """Runs calls, on threads or on an event loop."""

    def start(self, processor: Processor, claimed: Sequence[ClaimedJob], /) -> Future[Result]:
        """Run claimed jobs in one call."""


class Finisher:
    """Finishes the jobs of calls without effects in PostgreSQL, many in one transaction."""

    def __init__(self, engine: Engine, runner: BatchRunner) -> None:
        """Count and trace what succeeds as `runner` does."""
        self._engine = engine
        self._runner = runner

    def finish(self, processor: Processor, returned: Sequence[Returned]) -> list[JobRef]:
        """Finish jobs; return what was behind them. Those that are no longer ours are left out."""
        while returned:
            claimed = [job for job, _ in returned]
            took, lags = durations(returned, now=self._runner.clock())
            notes = notes_of(processor.name, took, lags)
            try:
                with self._runner.traces.commit(claimed), self._engine.begin() as connection:
                    woken, closed = self._finish(connection, processor, held(claimed), notes)
            except LeaseLost as error:
                log.warning("lease_lost", processor=processor.name, jobs=sorted(error.job_ids))
                returned = [call for call in returned if call.job.id not in error.job_ids]
                continue
            self._runner.tally.succeeded(processor.name, took, lags)
            if closed:
                log.info("breaker_closed", processor=processor.name)
            return woken
        return []

    def note_answer(self, processor: Processor) -> None:
        """Begin the count of the processor's breaker anew, unless it is open."""
        with self._engine.begin() as connection:
            breakers.answered(connection, processor.name, [])

    def _finish(
        self,
        connection: Connection,
        processor: Processor,
        leases: Sequence[Lease],
        notes: Sequence[Note],
    ) -> tuple[list[JobRef], bool]:
        """Return what was behind the jobs, and whether the processor's breaker closes."""
        closed = processor.breaker is not None and breakers.answered(
            connection, processor.name, [lease.id for lease in leases]
        )
        if processor.order:
            hint_s = self._runner.redispatch_after_s
            return jobs.finish_ordered(connection, leases, notes, hint_s=hint_s), closed
        jobs.finish(connection, leases, notes)
        return [], closed


class _Call(NamedTuple):
    """The jobs of a call that runs, and what keeps them leased."""

    claimed: Sequence[ClaimedJob]
    leases: contextlib.ExitStack


class Calls:
    """The calls of a processor that run now."""

    def __init__(
        self,
        starter: Starter,
        processor: Processor,
        *,
        keeper: Leases,
        finisher: Finisher,
        record: Record,
    ) -> None:
        """`record` is told of what has failed."""
        self._starter = starter
        self._processor = processor
        self._keeper = keeper
        self._finisher = finisher
        self._record = record
        self._running: dict[Future[Result], _Call] = {}
        self._answered_at = 0
        """The number of the last end known to say that the target is up."""
        self._counted_from = 0
        """That of the first failure recorded since then that the breaker counts; 0: none is."""

    def __len__(self) -> int:
        return len(self._running)

    def start(self, claimed: Sequence[ClaimedJob]) -> None:
        """Run claimed jobs: each in a call of its own, or all in one of a processor that takes
        lists."""
        if self._processor.batch and claimed:
            self._start(claimed)
            return
        for job in claimed:
            self._start([job])

    def _start(self, claimed: Sequence[ClaimedJob]) -> None:
        with contextlib.ExitStack() as leases:
            leases.enter_context(self._keeper.holding(held(claimed)))
            call = self._starter.start(self._processor, claimed)
            self._running[call] = _Call(claimed, leases.pop_all())

    def settle(self) -> list[JobRef]:
        """Wait for the next to end, and record how those have ended that have; return what was
        behind them.

        Raises:
            Exception: the first problem of a call's runner, once the others' ends are recorded.
        """
        done: set[Future[Result]] = set()
        while not done:  # a signal that another thread got is heeded once this one wakes up
            done = wait(self._running, timeout=_LOOK_S, return_when=FIRST_COMPLETED).done
        calls = [self._running.pop(future) for future in done]
        problems = [error for future in done if (error := future.exception()) is not None]
        results = [future.result() for future in done if future.exception() is None]
        with contextlib.ExitStack() as leases:
            for call in calls:
                leases.push(call.leases)
            woken = self._settle(calls, results)
        problems += [result.problem for result in results if result.problem is not None]
        if problems:
            raise problems[0]
        return woken

    def settle_all(self) -> None:
        """Record how all end, after an error too: it is not to be lost how the others did."""
        while self._running:
            try:
                self.settle()
            except Exception as error:
                log.warning("another_failed", processor=self._processor.name, exc_info=error)

    def _settle(self, calls: Sequence[_Call], results: Sequence[Result]) -> list[JobRef]:
        returned = [call for result in results for call in result.returned]
        woken = self._finisher.finish(self._processor, returned)
        self._note_answers(results, are_noted=bool(returned))
        self._record(
            self._processor,
            [job for call in calls for job in call.claimed],
            self._failures(results),
        )
        return woken + [ref for result in results for ref in result.woken]

    def _note_answers(self, results: Sequence[Result], *, are_noted: bool) -> None:
        """Note when the target answered last. A call that finished its jobs itself may have done so
        before failures ahead of it were recorded: they are still counted, unless `are_noted`."""
        for result in results:
            self._answered_at = max(self._answered_at, result.answered_at)
        if 0 < self._counted_from < self._answered_at:
            self._counted_from = 0
            if not are_noted:
                self._finisher.note_answer(self._processor)

    def _failures(self, results: Sequence[Result]) -> list[Failure]:
        """Return how calls failed, in the order in which they did, as they are to be counted."""
        failures = []
        for result in sorted(results, key=lambda result: result.ended_at):
            if result.ended_at < self._answered_at:
                breaker.answered(result.failures)
            elif any(failure.sign is Sign.DOWN for failure in result.failures):
                self._counted_from = self._counted_from or result.ended_at
            failures += result.failures
        return failures


def held(claimed: Sequence[ClaimedJob]) -> list[Lease]:
    """Return the claims on jobs."""
    return [Lease(id=job.id, attempt=job.attempt) for job in claimed]
