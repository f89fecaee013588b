"""What a destination's answer means."""

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum

from ingest.outgoing import Answer, shown

LONGEST_WAIT_S = 86_400.0
"""What `Retry-After` may ask for, at most."""
_SAY_WHEN = frozenset({429, 503})
_GONE = 410
_DIGITS = 12


class Meaning(StrEnum):
    """What follows from an answer."""

    TAKEN = "taken"
    GONE = "gone"
    """It wants no further attempt at this event."""
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """An answer, judged."""

    meaning: Meaning
    sentence: str
    """The status and the beginning of the answer, without our secrets."""
    status: int
    """The HTTP status."""
    retry_after_s: float | None = None
    """When it asked to be tried again, in seconds; None: it did not say."""


def judge(answer: Answer, *secrets: str, now: datetime) -> Verdict:
    """Return what an answer means. `secrets` are not repeated from it."""
    text = shown(answer.text, *secrets)
    told = f"HTTP {answer.status}: {text}" if text else f"HTTP {answer.status}"
    if answer.is_success:
        return Verdict(meaning=Meaning.TAKEN, sentence=told, status=answer.status)
    if answer.status == _GONE:
        return Verdict(meaning=Meaning.GONE, sentence=told, status=answer.status)
    if 300 <= answer.status < 400:
        told = f"HTTP {answer.status}: redirects are not followed"
    after = retry_after_s(answer.headers.get("retry-after"), now=now)
    return Verdict(
        meaning=Meaning.REFUSED,
        sentence=told,
        status=answer.status,
        retry_after_s=after if answer.status in _SAY_WHEN else None,
    )


def retry_after_s(value: str | None, *, now: datetime) -> float | None:
    """Return the seconds that a `Retry-After` asks for, a day at most; None: it cannot be read, or
    its time is over."""
    text = (value or "").strip()
    is_number = text.isascii() and text.isdigit()
    seconds = float(text[:_DIGITS]) if is_number else _until(text, now)
    return min(seconds, LONGEST_WAIT_S) if seconds > 0 else None


def _until(text: str, now: datetime) -> float:
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return 0.0
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    try:
        return (aware - now).total_seconds()
    except OverflowError:
        return 0.0
