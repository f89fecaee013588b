"""What the header `Retry-After` of an HTTP answer asks for."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_WAIT_S = 86_400.0
"""What it may ask for, at most."""
_DIGITS = 12


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
    except (TypeError, ValueError, OverflowError):
        return 0.0
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    try:
        return (aware - now).total_seconds()
    except OverflowError:
        return 0.0
