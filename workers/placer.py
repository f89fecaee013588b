"""Bringing the jobs of a processor with an order to their places: their keys are read, and then
placed (ingest.store.pipeline.ordering)."""

from collections.abc import Sequence

from sqlalchemy import Engine

from ingest.store.pipeline import jobs, ordering
from ingest.store.pipeline.jobs import JobRef
from workers.key_reader import KeyReader
from workers.registry import Processor


class Placer:
    """Reads keys in this process, and places what can be placed."""

    def __init__(self, engine: Engine, keys: KeyReader) -> None:
        """Read keys by `keys`."""
        self._engine = engine
        self._keys = keys

    def in_order(self, processor: Processor, refs: Sequence[JobRef]) -> list[JobRef]:
        """Return the jobs of a processor that may be claimed: of `refs`, and of those that could
        be placed now. Those that are behind another of their key are not among them.

        Those of `refs` that cannot be placed yet are left to whoever admits or reads what is
        before them. A job whose key cannot be told has failed for good.
        """
        ids = [ref.id for ref in refs]
        size = self._keys.at_once(processor)
        for start in range(0, len(ids), size):
            if not self._read(processor, ids[start : start + size]):
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
        """Read and note keys; return False once the process is to end. A job without a key has one
        of its own."""
        assert processor.order is not None
        if not self._keys.goes_on:
            return False
        with self._engine.begin() as connection:
            unread = ordering.unread(connection, job_ids)
        if not unread:
            return True
        keys, goes_on = self._keys.read(processor, processor.order.key, unread)
        with self._engine.begin() as connection:
            ordering.keep_keys(
                connection, processor.name, [(job, key or job.event) for job, key in keys]
            )
        return goes_on
