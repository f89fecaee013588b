"""What people are told of an erasure, by the command and by the console."""

from collections.abc import Mapping
from datetime import datetime

from ingest.console.ui.formats import plural

NOTHING = "Nothing is stored that names this person: there is nothing to erase."
CANNOT_BE_UNDONE = "This cannot be undone."
ANOTHER_PERSON = "Nothing was erased: that is another one."
BYTES_STAY = "The bytes stay in PostgreSQL's files until they are rewritten (docs/erasure.md):"


def known(sizes: Mapping[str, int]) -> str:
    """Say how much is known of the person, and not what."""
    counted = [plural(count, kind) for kind, count in sizes.items() if count]
    return f"Known of this person: {', '.join(counted)}."


def shared(conversations: int) -> str:
    """Say what becomes of conversations in which somebody else takes part."""
    return (
        f"{plural(conversations, 'conversation')} shared with somebody else: of these, only what"
        " names this person."
    )


def erased_before(number: int, finished_at: datetime | None) -> str:
    """Say that the same person was erased by an earlier request."""
    return (
        f"Erased before, on {moment(finished_at)} (erasure {number}); this is what has come since:"
    )


def goes_on(number: int, requested_at: datetime) -> str:
    """Say that an earlier request is continued."""
    return f"Erasure {number} of {moment(requested_at)} goes on."


def ended(number: int, events: int) -> str:
    """Say what an erasure came to."""
    return f"Erasure {number} has ended: {plural(events, 'event')} erased."


def given_up(jobs: int) -> str:
    """Say what became of unfinished jobs."""
    return f"{plural(jobs, 'job')} had not succeeded, and were given up."


def older_worker(worker: str) -> str:
    """Say why nobody may be erased now."""
    return (
        f"Nothing was erased: worker {worker} is of an older release, which would take a late"
        " duplicate for a new event. Replace it first; one that was killed counts for ten minutes."
    )


def moment(when: datetime | None) -> str:
    """Return a time as the command shows it."""
    return "-" if when is None else when.isoformat(timespec="seconds")
