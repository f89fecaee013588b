"""Reading times that other systems wrote, or a person."""

from datetime import UTC, datetime, timedelta

TIME_FORMS = "2026-01-31T12:00:00Z, or 15m, 2h, 7d for before now"

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_timestamp(value: object) -> datetime | None:
    """An ISO 8601 string as an aware UTC time; without an offset it counts as UTC; unreadable is
    None."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def parse_moment(text: str, *, now: datetime) -> datetime | None:
    """A time that a person gives, in one of `TIME_FORMS`, 1970 at the earliest; None if it is no
    such time."""
    epoch = datetime.fromtimestamp(0, UTC)
    unit = _UNITS.get(text[-1:])
    if unit and text[:-1].isascii() and text[:-1].isdigit() and len(text) < 10:
        try:
            return max(epoch, now - timedelta(**{unit: int(text[:-1])}))
        except OverflowError:  # a span that begins before the year 1
            return epoch
    moment = parse_timestamp(text)
    return None if moment is None or moment < epoch else moment
