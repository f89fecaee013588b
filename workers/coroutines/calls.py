"""One call of an async processor: its time limit, its effects, and what it comes to."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ingest import logs
from ingest.errors import LeaseLost
from ingest.store.pipeline.jobs import ClaimedJob, JobRef
from workers import batches, breaker, outcome
from workers.batches import BatchRunner, Call, Result, Returned
from workers.coroutines.database import Database
from workers.coroutines.effects import CallEffects, Connections
from workers.registry import Processor
from workers.shutdown import Shutdown
from workers.timeouts.signals import Interrupted, TimedOut
from workers.timeouts.watchdog import Watchdog

log = logs.logger(__name__)


@dataclass(slots=True, eq=False)
class Running:
    """A call that runs."""

    task: asyncio.Task[object]
    calls: Sequence[Call]
    processor: Processor
    ends: float
    """When its time is up, on the monotonic clock."""
    told: type[TimedOut] | None = None
    """Why it was cancelled; None: it was not."""
    told_at: float = 0.0

    def end(self, why: type[TimedOut]) -> None:
        """Cancel it; once."""
        if self.told is None:
            self.told, self.told_at = why, time.monotonic()
            self.task.cancel()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRunner:
    """Runs calls on an event loop."""

    runner: BatchRunner
    """Opens events, and has what calls are counted, traced and recorded by."""
    connections: Connections
    shutdown: Shutdown
    """Ends calls early; its clock is `time.monotonic`."""
    grace_s: float
    """What a call has to end in after it was cancelled, seconds; then the process ends."""
    watchdog: Watchdog
    running: dict[asyncio.Task[object], Running] = field(default_factory=dict)
    """The calls that run now, by their tasks."""

    async def run(self, processor: Processor, claimed: Sequence[ClaimedJob]) -> Result:
        """Call `processor` for claimed jobs: one, or a list of a processor that takes lists.

        Effects are committed with the success of their jobs. Jobs of calls without effects are the
        caller's to finish.
        """
        result = Result()
        calls = self.runner.open_calls(processor, claimed, result)
        if calls:
            await self._attempt(processor, calls, result)
        return result

    async def _attempt(self, processor: Processor, calls: Sequence[Call], result: Result) -> None:
        """Call the function in a transaction of its own. A list that fails is halved until the
        failing events are found. Once the target is found to be down, nothing more is called."""
        if breaker.is_down(processor.breaker, result.failures):
            for call in calls:
                result.fail(call.job, breaker.not_called(call.job))
            return
        effects = CallEffects(self.connections)
        try:
            took_s = await self._call(processor, calls, effects.db)
            if processor.breaker is not None:
                result.answer()
            returned = [Returned(call.job, took_s) for call in calls]
            if effects.have_begun:
                result.woken += await self._commit(processor, calls, returned, effects)
            else:
                result.returned += returned
        except LeaseLost as error:
            await effects.rollback()
            log.warning("lease_lost", processor=processor.name, jobs=sorted(error.job_ids))
            kept = [call for call in calls if call.job.id not in error.job_ids]
            if kept:
                await self._attempt(processor, self._afresh(processor, kept), result)
        except BaseException as error:  # sys.exit() too is no way to leave a processor
            await effects.rollback()
            if len(calls) == 1 or isinstance(error, Interrupted):
                for call in calls:
                    failure = outcome.of_error(
                        call.job, processor, error, random=self.runner.random
                    )
                    result.fail(call.job, failure)
                return
            middle = len(calls) // 2
            for half in (calls[:middle], calls[middle:]):
                await self._attempt(processor, self._afresh(processor, half), result)

    def _afresh(self, processor: Processor, calls: Sequence[Call]) -> Sequence[Call]:
        """Return the same with new events: the call that failed may have changed the old ones."""
        return [self.runner.call(processor, call.job, call.event.body) for call in calls]

    async def _call(self, processor: Processor, calls: Sequence[Call], database: Database) -> float:
        """Call the function within its limit. Return how long it took, in seconds.

        Raises:
            TimedOut: it took too long; Interrupted: the worker ends. Also when the function caught
                the cancellation and returned, since nobody knows what it left out.
            TransactionEnded: it tried to.
            BaseException: whatever the function raises.
        """
        now = time.monotonic()
        if now >= self.shutdown.ends_at:
            raise Interrupted
        events = [call.event for call in calls]
        task = asyncio.current_task()
        assert task is not None
        running = Running(task, calls, processor, now + processor.timeout_s)
        limit = asyncio.get_running_loop().call_later(processor.timeout_s, running.end, TimedOut)
        self.running[task] = running
        try:
            self._record()
            self.watchdog.extend(running.ends + 2 * self.grace_s)
            traced = self.runner.traces.call(processor, [call.job for call in calls])
            began = self.runner.clock()
            with batches.log_context(processor, events), traced:
                await processor.function(batches.argument(processor, events), database)  # type: ignore[misc]
        except BaseException as error:
            if running.told is None:
                raise
            task.uncancel()
            raise running.told().with_traceback(error.__traceback__) from None
        finally:
            limit.cancel()
            del self.running[task]
            self._record()
            database.end()
        if running.told is not None:
            raise running.told
        database.check()
        return self.runner.clock() - began

    async def _commit(
        self,
        processor: Processor,
        calls: Sequence[Call],
        returned: Sequence[Returned],
        effects: CallEffects,
    ) -> list[JobRef]:
        took, lags = batches.durations(returned, now=self.runner.clock())
        with self.runner.traces.commit([call.job for call in calls]):
            woken = await effects.commit(
                [call.held for call in calls],
                batches.notes_of(processor.name, took, lags),
                hint_s=self.runner.redispatch_after_s if processor.order else None,
                breaker_of=processor.name if processor.breaker else None,
            )
        self.runner.tally.succeeded(processor.name, took, lags)
        return woken

    def _record(self) -> None:
        """Have the crash record name the call that runs; none while several do."""
        if not self.running:
            self.watchdog.rest()
        if len(self.running) == 1:
            (running,) = self.running.values()
            if len(running.calls) == 1:
                self.runner.recorder.mark_running(running.calls[0].held)
                return
        self.runner.recorder.mark_idle()
