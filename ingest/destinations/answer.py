"""What a destination's answer means."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ingest.outgoing import Answer, shown
from ingest.retry_after import retry_after_s

_SAY_WHEN = frozenset({429, 503})
_GONE = 410


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
    may_say_when = answer.status in _SAY_WHEN
    asked = answer.headers.get("retry-after") if may_say_when else None
    return Verdict(
        meaning=Meaning.REFUSED,
        sentence=told,
        status=answer.status,
        retry_after_s=retry_after_s(asked, now=now),
    )
