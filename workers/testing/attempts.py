"""What a call of a processor came to, as a test reads it."""

from dataclasses import dataclass

from ingest.store.pipeline.jobs import Failure, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt at one event."""

    number: int
    """1 for the first attempt at the event."""
    outcome: Outcome
    """Compares equal to its text: `succeeded`, `failed`, `discarded`, `snoozed`, `timed_out`."""
    state: str
    """What the job is afterwards: `succeeded`, `retrying` or `dead`."""
    retry_in_s: float | None = None
    """Seconds until the next attempt. After a failure the pipeline waits a random time: this is the
    longest. None: there is no next attempt."""
    error: str | None = None
    """The type and the message of the exception: `KeyError: 'total'`."""
    traceback: str | None = None

    @property
    def succeeded(self) -> bool:
        """Return whether the processor returned and its effects stay."""
        return self.outcome is Outcome.SUCCEEDED


def success(number: int) -> Attempt:
    """Return the attempt of a call that returned."""
    return Attempt(number=number, outcome=Outcome.SUCCEEDED, state="succeeded")


def failure(failed: Failure) -> Attempt:
    """Return the attempt of a call that raised."""
    return Attempt(
        number=failed.attempt,
        outcome=failed.outcome,
        state="dead" if failed.retry_in_s is None else "retrying",
        retry_in_s=failed.retry_in_s,
        error=f"{failed.error_type}: {failed.error_message}",
        traceback=failed.traceback,
    )
