"""What a processor raises to say that a retry cannot help, or that it is too early for it."""


class Discard(Exception):
    """Raised by a processor: no retry can help. The job is dead at once and waits for a replay."""


class Snooze(Exception):
    """Raised by a processor: not now. The job is tried again later, and no attempt is spent."""

    def __init__(self, seconds: float) -> None:
        """Try again in `seconds`."""
        super().__init__(f"again in {seconds:g} s")
        self.seconds = seconds
