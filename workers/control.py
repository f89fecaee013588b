"""What a processor raises to say that a retry cannot help, or when it is to be."""

LONGEST_WAIT_S = 366 * 86_400.0
"""That a processor may ask for."""


class Discard(Exception):
    """Raised by a processor: no retry can help. The job is dead at once and waits for a replay."""

    is_answer = False
    """Whether it says that what was called has answered, so that it is not down."""


class Snooze(Exception):
    """Raised by a processor: not now. The job is tried again later, and no attempt is spent."""

    def __init__(self, seconds: float) -> None:
        """Try again in `seconds`."""
        super().__init__(f"again in {min(max(0, seconds), LONGEST_WAIT_S):g} s")
        self.seconds = seconds


class RetryAfter(Exception):
    """Raised by a processor: the attempt failed, and what it called said when to try again, by the
    `Retry-After` of an HTTP answer, say. The next attempt is then, and not by the back-off."""

    def __init__(self, message: str, seconds: float) -> None:
        """Try again in `seconds`, unless this was the last attempt."""
        super().__init__(message)
        self.seconds = seconds


def asked_s(error: Snooze | RetryAfter, *, most: float = LONGEST_WAIT_S) -> float:
    """Return how many seconds an error asks to wait, from 0 to `most`; 0 if that is no number.

    A server may have said them, or a subclass of a user's own: a whole number may be one that no
    float holds.
    """
    try:
        seconds = error.seconds
        number = seconds if isinstance(seconds, int) else float(seconds)
        return float(min(max(0, number), most))
    except Exception:
        return 0.0
