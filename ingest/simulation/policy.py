"""When a sender retries."""

from dataclasses import dataclass

from ingest.sources.base import Retries


@dataclass(frozen=True, slots=True)
class SenderRetries:
    """A sender's retry delays, shortened by a factor."""

    retries: Retries
    time_factor: float = 1.0
    """What each delay is divided by; 60 turns a minute into a second."""

    def wait_s(self, failed: int) -> float | None:
        """Return the seconds until the next try after `failed` failed tries. None: give up."""
        if failed > len(self.retries.waits_s):
            return None
        return self.retries.waits_s[failed - 1] / self.time_factor

    def is_final(self, status: int) -> bool:
        """Return whether the sender stops at this answer: accepted, or refused for good."""
        return status in self.retries.final
