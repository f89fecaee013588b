"""The form that Twilio posts: what of it is signed, and what it tells."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl

from ingest.timestamps import parse_timestamp

Pairs = list[tuple[str, str]]

_MOST_FIELDS = 1_000


def pairs(body: bytes) -> Pairs:
    """Return the decoded fields of a form, those without a value too.

    Raises:
        ValueError: it is not UTF-8, or has too many fields.
    """
    return parse_qsl(
        body.decode(),
        keep_blank_values=True,
        errors="strict",
        max_num_fields=_MOST_FIELDS,
    )


def signed_text(fields: Pairs) -> str:
    """Return what is signed of a form: names and values joined, sorted; of a name that repeats, its
    different values."""
    return "".join(name + value for name, value in sorted(set(fields)))


def as_object(fields: Pairs) -> dict[str, Any]:
    """Return the fields by name; of a name that repeats, a list of its values."""
    values: dict[str, list[str]] = {}
    for name, value in fields:
        values.setdefault(name, []).append(value)
    return {name: of_name if len(of_name) > 1 else of_name[0] for name, of_name in values.items()}


def read_time(value: object) -> datetime | None:
    """Return the time of a field, which Twilio spells in two ways; None: it is unreadable."""
    moment = parse_timestamp(value)
    if moment is None and isinstance(value, str):
        try:
            moment = parsedate_to_datetime(value)
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            return None
    return moment
