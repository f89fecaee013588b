"""Reading the keys of events in a worker process, by which jobs are kept in order or limited."""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from uuid import UUID

from sqlalchemy import Engine

from ingest import logs
from ingest.errors import BodyKeyMissing, BodyTampered, InvalidEnvelope, UnknownSource
from ingest.store.pipeline import jobs
from ingest.store.pipeline.jobs import ClaimedJob, Failure, Lease
from ingest.store.pipeline.unread import UnreadJob
from workers import outcome
from workers.batches import BatchRunner
from workers.event_key import EventKey
from workers.registry import Processor
from workers.shutdown import Shutdown
from workers.timeouts.signals import Interrupted

log = logs.logger(__name__)

Tell = Callable[[Processor, Sequence[ClaimedJob], Sequence[Failure], Collection[int]], None]
"""Tells of the failures of claimed jobs, and of which of them are recorded."""
_AT_ONCE = 100
"""Bodies that are in memory at a time, at most."""


class KeyReader:
    """Opens events as the runner does, and limits a key's function as it limits a processor."""

    def __init__(
        self,
        engine: Engine,
        runner: BatchRunner,
        *,
        worker: str,
        lease_s: float,
        shutdown: Shutdown,
        fitting: Callable[[Processor], int],
        tell: Tell,
        release: str | None = None,
    ) -> None:
        """`worker` and `release` name this process and the application in failed attempts. Once
        `shutdown` has begun, no more keys are read. `fitting` returns how many bodies of a
        processor's jobs to have in memory; `tell` is told of what fails."""
        self._engine = engine
        self._runner = runner
        self._worker = worker
        self._lease_s = lease_s
        self._shutdown = shutdown
        self._fitting = fitting
        self._tell = tell
        self._release = release

    def at_once(self, processor: Processor) -> int:
        """Return how many jobs of a processor to read the keys of at once."""
        return min(_AT_ONCE, self._fitting(processor))

    @property
    def goes_on(self) -> bool:
        """Return whether keys are still to be read: the process is not to end."""
        return not self._shutdown.has_begun

    def read(
        self, processor: Processor, key: EventKey, unread: Sequence[UnreadJob]
    ) -> tuple[list[tuple[UnreadJob, UUID | None]], bool]:
        """Return each job with the digest of its key, and whether the process goes on.

        None: the event has no key, or cannot be read, which is the attempt's to tell. A job whose
        key cannot be told has failed for good, and is left out.
        """
        keys: list[tuple[UnreadJob, UUID | None]] = []
        try:
            keys.extend(self._keys(processor, key, unread))
        finally:
            self._runner.time_limit.rest()
        return keys, self.goes_on

    def _keys(
        self, processor: Processor, key: EventKey, unread: Sequence[UnreadJob]
    ) -> Iterator[tuple[UnreadJob, UUID | None]]:
        for job in unread:
            if not self.goes_on:
                return
            try:
                values = self._key(processor, key, job)
            except Interrupted:
                return
            except BodyKeyMissing as error:  # another worker may have it
                self._record(processor, job, partial(outcome.of_missing_key, error=error))
            except BaseException as error:  # whatever a user's function raises
                self._give_up(processor, job, error)
            else:
                yield job, None if values is None else key.digest(processor.name, values)

    def _key(self, processor: Processor, key: EventKey, job: UnreadJob) -> tuple[str, ...] | None:
        if job.body is None:
            return None
        try:
            body = self._runner.body_keys.open(job.body, job.event, job.body_key)
            call = self._runner.call(processor, _as_claimed(job, processor), body)
        except (BodyTampered, InvalidEnvelope, UnknownSource):
            return None
        if key.function is None:
            return key.of(call.event)
        self._runner.recorder.mark_running(Lease(id=job.id, attempt=job.attempt + 1))
        try:
            with self._runner.time_limit(processor.timeout_s):
                return key.of(call.event)
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
            failures = list(map(failed, claimed))
            recorded = jobs.fail(connection, failures, release=self._release)
        self._tell(processor, claimed, failures, recorded)


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
