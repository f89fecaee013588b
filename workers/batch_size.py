"""How many jobs of a processor to claim at once: what fits into a moment.

A slice is what a killed process takes with it, what waits behind a slow call, what shares one
commit, and what is in memory. Quick processors get large slices, slow ones a job at a time; those
of large bodies get smaller ones.
"""

from collections.abc import Sequence

from workers.registry import Processor

MOMENT_S = 0.25
LARGEST = 100
LARGEST_BATCH = 200
_MOST_BYTES = 32 * 1024 * 1024
"""Of the bodies of a slice. Read and parsed they take several times as much memory."""
_BYTES_OF_FIRST = 1024 * 1024
"""Of each body of the first list of a processor: most senders post no more."""
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
    """The moving averages of each processor's time and bytes per job."""

    def __init__(self) -> None:
        self._seconds_per_job: dict[str, float] = {}
        self._bytes_per_job: dict[str, float] = {}

    def batch_size(self, processor: Processor) -> int:
        """Return how many jobs of `processor` to claim next."""
        return min(self.fitting(processor), self._worked_on_in_a_moment(processor))

    def fitting(self, processor: Processor) -> int:
        """Return how many bodies of a processor's jobs to have in memory at once; one at least."""
        unseen = _BYTES_OF_FIRST if processor.batch else 1
        bytes_per_job = self._bytes_per_job.get(processor.name, unseen)
        return max(1, int(_MOST_BYTES / max(bytes_per_job, 1)))

    def _worked_on_in_a_moment(self, processor: Processor) -> int:
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

    def observe_sizes(self, processor: Processor, sizes: Sequence[int]) -> None:
        """Take in that claimed jobs have bodies of `sizes` bytes, one or more.

        Larger ones are heeded at once, and forgotten as slowly as everything else.
        """
        newest = sum(sizes) / len(sizes)
        before = self._bytes_per_job.get(processor.name, newest)
        averaged = before + _MEMORY * (newest - before)
        self._bytes_per_job[processor.name] = max(newest, averaged)
