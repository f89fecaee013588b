"""Which queue leads to a worker that takes a job."""

from collections.abc import Mapping
from dataclasses import dataclass

from ingest import queues
from ingest.store.pipeline.jobs import JobRef

Lane = tuple[str, str]
"""A processor and a queue."""


def present_queue(processor: str, queue: str, present: Mapping[str, str]) -> str:
    """Return the queue in which a job of `queue` belongs now; replays stay in their lane."""
    return queue if queue == queues.REPLAY else present.get(processor, queue)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanes:
    """What live workers take."""

    served: frozenset[Lane] | None
    """None: that is not known."""
    present: Mapping[str, str]
    """The queue of each processor, as last registered."""

    def has_worker(self, processor: str) -> bool:
        """Return whether a worker may have a processor."""
        return self.served is None or any(processor == name for name, _ in self.served)

    def queue_to(self, ref: JobRef) -> str | None:
        """Return the queue through which a worker gets word of a job that waits in a line: that in
        which it belongs now, or was, or that of its processor. None: nobody takes it.

        During a deploy the last may have been registered by a worker that does not report itself
        yet.
        """
        own = present_queue(ref.processor, ref.queue, self.present)
        if self.served is None:
            return own
        regular = self.present.get(ref.processor, ref.queue)
        for queue in (own, ref.queue, regular):
            if (ref.processor, queue) in self.served:
                return queue
        return None
