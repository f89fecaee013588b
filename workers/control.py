"""What a processor raises to say that a retry cannot help, or when it is to be."""


class Discard(Exception):
    """Raised by a processor: no retry can help. The job is dead at once and waits for a replay."""


class Snooze(Exception):
    """Raised by a processor: not now. The job is tried again later, and no attempt is spent."""

    def __init__(self, seconds: float) -> None:
        """Try again in `seconds`."""
        super().__init__(f"again in {seconds:g} s")
        self.seconds = seconds


class RetryAfter(Exception):
    """Raised by a processor: the attempt failed, and what it called said when to try again, by the
    `Retry-After` of an HTTP answer, say. The next attempt is then, and not by the back-off."""

    def __init__(self, message: str, seconds: float) -> None:
        """Try again in `seconds`, unless this was the last attempt."""
        super().__init__(message)
        self.seconds = seconds
