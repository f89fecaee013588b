"""Bringing the jobs of a processor with an order to their places: their keys are read, and then
placed (ingest.store.pipeline.ordering)."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from uuid import UUID

from sqlalchemy import Engine

from ingest import logs
from ingest.errors import BodyKeyMissing, BodyTampered, InvalidEnvelope, UnknownSource
from ingest.store.pipeline import jobs, ordering
from ingest.store.pipeline.jobs import ClaimedJob, Failure, JobRef, Lease
from ingest.store.pipeline.ordering import UnreadJob
from workers import outcome
from workers.batches import BatchRunner
from workers.order import Order
from workers.registry import Processor
from workers.shutdown import Shutdown
from workers.timeouts.signals import Interrupted

log = logs.logger(__name__)

_READ_AT_ONCE = 100
"""Bodies that are in memory at a time."""


class Placer:
    """Reads keys in this process, and places what can be placed."""

    def __init__(
        self,
        engine: Engine,
        runner: BatchRunner,
        *,
        worker: str,
        lease_s: float,
        shutdown: Shutdown,
        release: str | None = None,
    ) -> None:
        """Open events as `runner` does, and limit a key's function as it limits a processor.

        `worker` and `release` name this process and the application in failed attempts. Once
        `shutdown` has begun, no more keys are read.
        """
        self._engine = engine
        self._runner = runner
        self._worker = worker
        self._lease_s = lease_s
        self._shutdown = shutdown
        self._release = release

    def in_order(self, processor: Processor, refs: Sequence[JobRef]) -> list[JobRef]:
        """Return the jobs of a processor that may be claimed: of `refs`, and of those that could
        be placed now. Those that are behind another of their key are not among them.

        Those of `refs` that cannot be placed yet are left to whoever admits or reads what is
        before them. A job whose key cannot be told has failed for good.
        """
        ids = [ref.id for ref in refs]
        for start in range(0, len(ids), _READ_AT_ONCE):
            if not self._read(processor, ids[start : start + _READ_AT_ONCE]):
                break
        with self._engine.begin() as connection:
            return jobs.place(connection, processor.name, processor.types, ids)

    def put_behind(self, refs: Sequence[JobRef]) -> None:
        """Put those of `refs` that turned out to be behind another."""
        with self._engine.begin() as connection:
            jobs.put_behind(connection, [ref.id for ref in refs])

    def unplaced(self) -> set[str]:
        """Return the processors that have jobs to be placed."""
        with self._engine.begin() as connection:
            return ordering.unplaced(connection)

    def _read(self, processor: Processor, job_ids: Sequence[int]) -> bool:
        """Read and note keys; return False once the process is to end."""
        assert processor.order is not None
        if self._shutdown.has_begun:
            return False
        with self._engine.begin() as connection:
            unread = ordering.unread(connection, job_ids)
        if not unread:
            return True
        keys: list[tuple[UnreadJob, UUID]] = []
        try:
            keys.extend(self._keys(processor, processor.order, unread))
        finally:
            self._runner.time_limit.rest()
        with self._engine.begin() as connection:
            ordering.keep_keys(connection, processor.name, keys)
        return not self._shutdown.has_begun

    def _keys(
        self, processor: Processor, order: Order, unread: Sequence[UnreadJob]
    ) -> Iterator[tuple[UnreadJob, UUID]]:
        """Yield each job with the digest of its key, until the process is to end. One without a key
        has one of its own."""
        for job in unread:
            if self._shutdown.has_begun:
                return
            try:
                key = self._key(processor, order, job)
            except Interrupted:
                return
            except BodyKeyMissing as error:  # another worker may have it; what is behind waits
                self._record(processor, job, partial(outcome.of_missing_key, error=error))
            except BaseException as error:  # whatever a user's function raises
                self._give_up(processor, job, error)
            else:
                yield job, job.event if key is None else order.digest(processor.name, key)

    def _key(self, processor: Processor, order: Order, job: UnreadJob) -> tuple[str, ...] | None:
        """Return the key of a job's event; None: it has none, or its body cannot be read, which
        is the attempt's to tell."""
        if job.body is None:
            return None
        try:
            body = self._runner.body_keys.open(job.body, job.event, job.body_key)
            call = self._runner.call(processor, _as_claimed(job, processor), body)
        except (BodyTampered, InvalidEnvelope, UnknownSource):
            return None
        if order.function is None:
            return order.key_of(call.event)
        self._runner.recorder.mark_running(Lease(id=job.id, attempt=job.attempt + 1))
        try:
            with self._runner.time_limit(processor.timeout_s):
                return order.key_of(call.event)
        finally:
            self._runner.recorder.mark_idle()

    def _give_up(self, processor: Processor, job: UnreadJob, error: BaseException) -> None:
        """Record an attempt that failed for good."""
        self._record(processor, job, lambda held: outcome.of_unreadable_key(held, processor, error))
        log.warning(
            "key_unreadable",
            id=str(job.event),
            job=job.id,
            processor=processor.name,
            error_type=type(error).__name__,
        )

    def _record(
        self, processor: Processor, job: UnreadJob, failed: Callable[[ClaimedJob], Failure]
    ) -> None:
        """Record an attempt at a job that is due, and what it came to."""
        with self._engine.begin() as connection:
            claimed = jobs.claim(
                connection,
                [job.id],
                worker=self._worker,
                lease_s=self._lease_s,
                max_attempts=processor.max_attempts,
            )
            jobs.fail(connection, list(map(failed, claimed)), release=self._release)


def _as_claimed(job: UnreadJob, processor: Processor) -> ClaimedJob:
    """Return a job as if it were claimed, to open its event."""
    return ClaimedJob(
        id=job.id,
        processor=processor.name,
        attempt=job.attempt + 1,
        failures=0,
        trigger="delivery",
        event=job.event,
        source=job.source,
        event_id=job.event_id,
        type=job.type,
        received_at=job.received_at,
        body=job.body,
        body_key=job.body_key,
    )
