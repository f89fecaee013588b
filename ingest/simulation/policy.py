"""When a sender sends again."""

from dataclasses import dataclass

from ingest.sources.base import Retries


@dataclass(frozen=True, slots=True)
class SenderRetries:
    """A sender's waits, with time made to pass faster."""

    retries: Retries
    time_factor: float = 1.0
    """60: a minute of the sender's passes in a second."""

    def wait_s(self, failed: int) -> float | None:
        """Return the seconds until the next try after `failed` failed ones; None: given up."""
        if failed > len(self.retries.waits_s):
            return None
        return self.retries.waits_s[failed - 1] / self.time_factor

    def is_final(self, status: int) -> bool:
        """Return whether the sender stops at this answer: it was taken, or it never will be."""
        return status in self.retries.final
