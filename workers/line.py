"""Jobs of processors with limits: putting them into their line, and taking those that may start."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from sqlalchemy import Engine

from ingest import queues
from ingest.store.pipeline import limited_line, pulling
from ingest.store.pipeline.jobs import ClaimedJob, JobRef
from ingest.store.pipeline.limited_line import shared_key
from ingest.store.pipeline.limits import DeclaredLimits
from ingest.store.pipeline.pulling import Claiming
from workers.key_reader import KeyReader
from workers.registry import Processor


class Lines:
    """The lines of a worker's processors with limits."""

    def __init__(self, engine: Engine, keys: KeyReader, *, worker: str, lease_s: float) -> None:
        """Read keys by `keys`, and claim as `worker`."""
        self._engine = engine
        self._keys = keys
        self._worker = worker
        self._lease_s = lease_s

    def enter(self, processor: Processor, refs: Sequence[JobRef]) -> None:
        """Put those of `refs` that wait and are due into the line; what is there keeps its place.

        A job whose key cannot be told has failed for good.
        """
        size = self._keys.at_once(processor)
        for start in range(0, len(refs), size):
            entries, goes_on = self._entries(processor, refs[start : start + size])
            with self._engine.begin() as connection:
                pulling.enter(connection, declared(processor), entries)
            if not goes_on:
                break

    def pull(
        self, processor: Processor, *, at_most: int, may_be_apart: bool = True
    ) -> list[ClaimedJob]:
        """Claim the jobs that may start now, in fair shares.

        One that comes back from a lost process is claimed by itself; none is, if `may_be_apart` is
        False.
        """
        claiming = Claiming(
            worker=self._worker,
            lease_s=self._lease_s,
            max_attempts=processor.max_attempts,
            is_ordered=processor.order is not None,
        )
        with self._engine.begin() as connection:
            return pulling.pull(
                connection,
                declared(processor),
                at_most=at_most,
                claiming=claiming,
                may_be_apart=may_be_apart,
            )

    def front(self, processor: Processor) -> list[JobRef]:
        """Return the first job that may start now; none: there is none.

        It is one of the processor's queue, in which a worker gets word of it, unless it is a
        replay: the queue may be another since the job came to the line.
        """
        with self._engine.begin() as connection:
            first = pulling.front(connection, processor.name, at_most=1)
        return [
            ref if ref.queue == queues.REPLAY else replace(ref, queue=processor.queue)
            for ref in first
        ]

    def _entries(
        self, processor: Processor, refs: Sequence[JobRef]
    ) -> tuple[list[tuple[int, UUID | None]], bool]:
        """Return jobs with their keys, and whether the process goes on. No key was read of what was
        in the line, or did not wait."""
        assert processor.limits is not None
        shared = {ref.id: shared_key(ref.queue) for ref in refs}
        if processor.limits.key is None:
            return list(shared.items()), True
        with self._engine.begin() as connection:
            unread = limited_line.unread(connection, list(shared))
        keys, goes_on = self._keys.read(processor, processor.limits.key, unread)
        read = {job.id: key or shared[job.id] for job, key in keys}
        given_up = {job.id for job in unread} - read.keys()
        entries = [(job, read.get(job)) for job in shared if job not in given_up]
        return entries, goes_on


def declared(processor: Processor) -> DeclaredLimits:
    """Return the limits of a processor, as they are registered."""
    assert processor.limits is not None
    key = processor.limits.key
    return DeclaredLimits(
        processor=processor.name,
        limit_by=key.described if key else None,
        bounds=processor.limits.bounds,
    )
