"""What sources share when they read a body that has been verified."""

from collections.abc import Sequence
from typing import Any, NoReturn

from ingest import strict_json
from ingest.errors import InvalidEnvelope

MAX_SPLIT_BYTES = 64 * 1024 * 1024
"""The most that the bodies of a request's events may have together."""


def json_object(body: bytes) -> dict[str, Any]:
    """Return the fields of a body that is a JSON object.

    Raises:
        InvalidEnvelope: it is none.
    """
    try:
        fields = strict_json.loads(body)
    except strict_json.InvalidJson as error:
        refuse("body_not_json", f"{error}")
    if not isinstance(fields, dict):
        refuse("body_not_object", "the body is not a JSON object")
    return fields


def refuse(reason: str, why: str) -> NoReturn:
    """Raise InvalidEnvelope; `why` is a clause."""
    raise InvalidEnvelope(f"Signed, but {why}.", reason=reason)


def lookup(value: Any, path: str) -> Any:
    """Return what stands under a dotted path (`data.items.0.id`), or None."""
    return walk(value, path.split("."))


def walk(value: Any, steps: Sequence[str]) -> Any:
    """Return what stands under the steps of a path, or None."""
    for step in steps:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isascii() and step.isdigit() and len(step) < 6:
            value = value[int(step)] if int(step) < len(value) else None
        else:
            return None
    return value
