"""What jobs may be kept in order by: fields of the data of their events."""

import re

MOST_FIELDS = 8
_FIELD = re.compile(r"[^\s.]+(?:\.[^\s.]+)*")


def is_field(name: str) -> bool:
    """Return whether a text names a field: `order_id`, or `order.id` for a field of an object."""
    return _FIELD.fullmatch(name) is not None
