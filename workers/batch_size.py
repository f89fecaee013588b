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
