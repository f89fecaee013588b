"""Reading times that other systems wrote."""

from datetime import UTC, datetime


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
