"""How many jobs of a processor to claim at once: what fits into a moment.

A slice is what a killed process takes with it, what waits behind a slow call, and what shares one
commit. Quick processors get large slices, slow ones a job at a time.
"""

from workers.registry import Processor

MOMENT_S = 0.25
LARGEST = 100
LARGEST_BATCH = 200
_FIRST = 10
_MEMORY = 0.3
"""Weight of the newest slice in the moving average."""
_LONGEST_RUN = 20
"""Of a key. Its first failure makes the rest of the run wasted claims."""
_KEYS_AT_LEAST = 10
"""That share a batch, where so many wait: a key with many jobs holds up no other."""


def length_of_runs(processor: Processor, *, size: int, keys: int) -> int:
    """Return how many consecutive jobs of a key to claim at once.

    A list holds one event of a key, and threads and an event loop run jobs side by side: then it is
    one.

    Args:
        processor: one with an order.
        size: of the batch, in jobs.
        keys: how many keys have jobs that wait here, at most.
    """
    if processor.batch or processor.threads > 1 or processor.is_async:
        return 1
    return max(1, min(_LONGEST_RUN, size // max(1, min(keys, _KEYS_AT_LEAST))))


class BatchSizer:
    """The moving average of each processor's time per job."""

    def __init__(self) -> None:
        self._seconds_per_job: dict[str, float] = {}

    def batch_size(self, processor: Processor) -> int:
        """Return how many jobs of `processor` to claim next."""
        if processor.batch:
            return LARGEST_BATCH
        seconds = self._seconds_per_job.get(processor.name)
        if seconds is None:
            return _FIRST
        return max(1, min(LARGEST, int(MOMENT_S / max(seconds, 1e-6))))

    def observe(self, processor: Processor, jobs: int, seconds: float) -> None:
        """Take in that a slice of `jobs` took `seconds`."""
        newest = seconds / jobs
        before = self._seconds_per_job.get(processor.name, newest)
        self._seconds_per_job[processor.name] = before + _MEMORY * (newest - before)
