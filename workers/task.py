"""What one task does: admit deliveries, then run jobs, and hand back what takes too long."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ingest import logs, queues
from ingest.dispatch import IDS_PER_MESSAGE, Dispatcher
from ingest.errors import DispatchFailed
from ingest.monitoring import catalogue
from ingest.store.pipeline import admission, jobs
from ingest.store.pipeline.admission import Admitted
from ingest.store.pipeline.jobs import ClaimedJob, JobRef
from workers.counts import Tally
from workers.executor import Executor
from workers.registry import Processor, Registry
from workers.shutdown import Shutdown
from workers.tracing.base import Traces

log = logs.logger(__name__)

_ADMIT_RUNS = 3
_CONTINUED_FOR = 3
"""How many times as long as other jobs the relay leaves alone what is to be continued."""
# What is admitted here is worked on here; a processor with a queue of its own is not to delay it.
_LANES = (queues.LIVE, queues.REPLAY)


class TaskHandler:
    """The work of one worker process."""

    def __init__(
        self,
        engine: Engine,
        registry: Registry,
        executor: Executor,
        dispatcher: Dispatcher,
        *,
        tally: Tally,
        budget_s: float,
        redispatch_after_s: float,
        clock: Callable[[], float],
        shutdown: Shutdown,
        traces: Traces,
    ) -> None:
        """A call works for about `budget_s` seconds, and on a slice of each processor's jobs at
        least; `clock` is monotonic, in seconds. Once `shutdown` has begun, what a call admits is
        handed on."""
        self._engine = engine
        self._registry = registry
        self._executor = executor
        self._dispatcher = dispatcher
        self._tally = tally
        self._budget_s = budget_s
        self._redispatch_after_s = redispatch_after_s
        self._clock = clock
        self._shutdown = shutdown
        self._traces = traces

    def process(self, deliveries: Sequence[UUID], job_ids: Sequence[int]) -> None:
        """Admit `deliveries` and run what that makes, and run `job_ids`. Safe to repeat, anywhere,
        any number of times: what is done or held by another is left alone."""
        started = self._clock()
        self._tally.add(catalogue.TASKS)
        with ExitStack() as held:  # what is claimed is kept leased until all of it has run
            claimed, here, elsewhere = self._admit(deliveries, held)
            if job_ids:
                with self._engine.begin() as connection:
                    here += jobs.due(connection, job_ids)
            self._dispatch(elsewhere)
            # Until the keys of what was admitted are read, nothing received later can be placed.
            refs, here = here, self._placed(here)
            if deliveries:
                others = self._place_others(refs)
                here += [ref for ref in others if ref.queue in _LANES]
                self._dispatch([ref for ref in others if ref.queue not in _LANES])
            self._executor.run_claimed(self._by_processor(claimed))
        left = self._run(here, until=started + self._budget_s)
        self._hand_back(left)
        log.debug(
            "processed",
            deliveries=len(deliveries),
            jobs=len(claimed) + len(here) - len(left),
            handed_back=len(left),
            seconds=round(self._clock() - started, 4),
        )

    def _admit(
        self, deliveries: Sequence[UUID], held: ExitStack
    ) -> tuple[list[ClaimedJob], list[JobRef], list[JobRef]]:
        """Admit, and part the jobs made: claimed (and `held` from then on), for this lane, and for
        queues of their own."""
        claimed: list[ClaimedJob] = []
        made: list[JobRef] = []
        for _ in range(_ADMIT_RUNS if deliveries else 0):
            try:
                admitted = self._admit_once(deliveries)
            except SQLAlchemyError as error:
                if not claimed:
                    raise
                # What is claimed is to run; what is unadmitted, the relay finds.
                log.warning("admit_broken_off", reason=type(error).__name__)
                break
            held.enter_context(self._executor.holding(admitted.claimed))
            self._traces.claimed(self._engine, admitted.claimed)
            claimed += admitted.claimed
            made += admitted.jobs
            self._tally.add(catalogue.DUPLICATES, admitted.duplicates)
            if admitted.conflicts:
                self._tally.add(catalogue.CONFLICTS, admitted.conflicts)
                log.warning("events_conflict", conflicts=admitted.conflicts)
            if not admitted.unsettled:
                break
        here = [ref for ref in made if ref.queue in _LANES]
        return claimed, here, [ref for ref in made if ref.queue not in _LANES]

    def _admit_once(self, deliveries: Sequence[UUID]) -> Admitted:
        traced = self._traces.admission(self._engine, deliveries)
        with traced, self._engine.begin() as connection:
            return admission.admit(
                connection,
                deliveries,
                self._registry.new_jobs(self._claimed),
                replay_queue=queues.REPLAY,
                redispatch_after_s=self._redispatch_after_s,
                claimant=self._executor.claimant,
            )

    def _claimed(self, processor: Processor) -> int:
        """Return how many of a message's jobs of `processor` to claim as they are made: the first
        batch."""
        is_elsewhere = processor.queue not in _LANES
        is_beside = processor.threads > 1 or processor.is_async
        is_first_placed = processor.order or processor.limits
        if is_elsewhere or is_beside or is_first_placed or self._shutdown.has_begun:
            return 0
        return self._executor.batch_size(processor)

    def _by_processor(
        self, claimed: Sequence[ClaimedJob]
    ) -> list[tuple[Processor, list[ClaimedJob]]]:
        return [
            (processor, [job for job in claimed if job.processor == processor.name])
            for processor in self._registry
            if any(job.processor == processor.name for job in claimed)
        ]

    def _run(self, refs: Sequence[JobRef], *, until: float) -> list[JobRef]:
        """Run jobs, a processor at a time; returns those that there was no time for."""
        left: list[JobRef] = []
        for (name, apart), group in _grouped(refs).items():
            processor = self._registry.get(name)
            if processor is None:
                # Another worker may have it, or the next deploy; the relay asks again.
                log.warning("processor_unknown", processor=name, jobs=len(group))
                continue
            left += self._executor.run(processor, group, until=until, apart=apart)
        return left

    def _placed(self, refs: Sequence[JobRef]) -> list[JobRef]:
        """Place the jobs of processors with an order; return those that may be claimed, and all
        jobs of other processors."""
        by_processor: dict[str, list[JobRef]] = defaultdict(list)
        for ref in refs:
            by_processor[ref.processor].append(ref)
        may_run: list[JobRef] = []
        for name, group in by_processor.items():
            processor = self._registry.get(name)
            if processor is not None and processor.order is not None:
                group = self._place(processor, group)
            may_run += group
        return may_run

    def _place(self, processor: Processor, refs: Sequence[JobRef]) -> list[JobRef]:
        try:
            return self._executor.place(processor, refs)
        except SQLAlchemyError as error:  # the relay dispatches them again
            log.warning("not_placed", processor=processor.name, reason=type(error).__name__)
            return []

    def _place_others(self, refs: Sequence[JobRef]) -> list[JobRef]:
        """Place jobs that had to wait for what was admitted here, of processors with an order that
        have none of `refs`; return those that may be claimed."""
        had = {ref.processor for ref in refs}
        try:
            unplaced = self._executor.unplaced(self._registry)
        except SQLAlchemyError as error:  # whoever admits or reads next places them
            log.warning("not_placed", reason=type(error).__name__)
            return []
        others = [processor for processor in unplaced if processor.name not in had]
        return [ref for processor in others for ref in self._place(processor, [])]

    def _hand_back(self, refs: Sequence[JobRef]) -> None:
        """Dispatch what there was no time for. The relay leaves it alone for longer than usual, so
        that it does not fill the backlog queue with what waits to be continued already."""
        if not refs:
            return
        ids = [ref.id for ref in refs if not self._has_limits(ref)]
        try:
            with self._engine.begin() as connection:
                jobs.presume_known(connection, ids, for_s=_CONTINUED_FOR * self._redispatch_after_s)
        except SQLAlchemyError as error:  # the relay dispatches them sooner
            log.warning("not_left_alone", jobs=len(ids), reason=type(error).__name__)
        self._dispatch(refs, continues=True)

    def _has_limits(self, ref: JobRef) -> bool:
        """Return whether a job waits in the line of a processor with limits, which hints it."""
        processor = self._registry.get(ref.processor)
        return processor is not None and processor.limits is not None

    def _dispatch(self, refs: Sequence[JobRef], *, continues: bool = False) -> None:
        """Hint jobs to their own queues, in two messages a queue or more, so that two workers can
        share them. `continues`: they are not to wait behind what comes now."""
        by_queue: dict[str, list[int]] = defaultdict(list)
        for ref in refs:
            by_queue[queues.continued(ref.queue) if continues else ref.queue].append(ref.id)
        for queue, ids in by_queue.items():
            size = min(IDS_PER_MESSAGE, (len(ids) + 1) // 2)
            for start in range(0, len(ids), size):
                part = ids[start : start + size]
                try:
                    self._dispatcher.dispatch(queue, jobs=part)
                    self._tally.add(catalogue.DISPATCHES)
                except DispatchFailed as error:
                    self._tally.add(catalogue.DISPATCH_FAILURES)
                    log.warning("dispatch_failed", reason=error.reason, jobs=len(part))
                    with self._engine.begin() as connection:
                        jobs.undo_dispatch(connection, part)


def _grouped(refs: Iterable[JobRef]) -> dict[tuple[str, bool], list[JobRef]]:
    """Return jobs by processor; those that come back from a lost process are to run apart."""
    groups: dict[tuple[str, bool], list[JobRef]] = defaultdict(list)
    for ref in refs:
        groups[ref.processor, ref.trigger == "rescue"].append(ref)
    return groups
