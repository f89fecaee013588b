"""When AwalChat sends again, as its documentation says."""

from dataclasses import dataclass

DOCUMENTED_RETRIES_S = (60.0, 300.0, 900.0, 3_600.0, 21_600.0)
"""1 min, 5 min, 15 min, 1 h, 6 h after the failed answer before; then the event is given up."""

_FINAL = frozenset(range(400, 500)) | {200}


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """The documented waits, with time made to pass faster."""

    time_factor: float = 1.0
    """60: a minute of the sender's passes in a second."""

    def wait_s(self, failed: int) -> float | None:
        """Seconds until the next try after `failed` failed ones; None: given up."""
        if failed > len(DOCUMENTED_RETRIES_S):
            return None
        return DOCUMENTED_RETRIES_S[failed - 1] / self.time_factor


def is_final(status: int) -> bool:
    """Whether the sender stops at this answer: it was taken, or it will never be (4xx)."""
    return status in _FINAL
