"""Reading what a payload says: what makes it unusable is a Discard, what is merely odd is None."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from ingest.text import is_storable, storable
from ingest.timestamps import parse_timestamp
from workers.registry import Discard

_BIGINT = range(-(2**63), 2**63)
_KEY_LIMIT = 500
_INTEGER_DIGITS = 18
_DECIMAL_PLACES = 12

Data = Mapping[str, Any]


def entity_id(data: Data, *names: str) -> int:
    """The entity's id, under the first of `names` that is there.

    Raises:
        Discard: it is missing, no whole number, or out of range.
    """
    for name in names:
        if data.get(name) is not None:
            found = _integer(data[name])
            if found is None:
                raise Discard(f"{name} is not a whole number")
            return _in_range(name, found)
    raise Discard(f"{' or '.join(names)} is missing")


def optional_id(data: Data, name: str) -> int | None:
    """Another entity's id, or None.

    Raises:
        Discard: it is out of range.
    """
    found = _integer(data.get(name))
    return None if found is None else _in_range(name, found)


def key(data: Data, name: str) -> str:
    """A text that identifies the entity.

    Raises:
        Discard: it is missing, no text, too long for an index, or not storable as it is.
    """
    value = data.get(name)
    if value is None or value == "":
        raise Discard(f"{name} is missing")
    if not isinstance(value, str):
        raise Discard(f"{name} is not a string")
    if len(value) > _KEY_LIMIT or not is_storable(value):
        raise Discard(f"{name} is out of range")
    return value


def status(data: Data, name: str) -> str | None:
    """A status, or None where the payload has none.

    Raises:
        Discard: it is not a string.
    """
    value = data.get(name)
    if value is not None and not isinstance(value, str):
        raise Discard(f"{name} is not a string")
    return None if value is None else storable(value)


def required_status(data: Data, name: str) -> str:
    """The status that the event is about.

    Raises:
        Discard: it is missing or not a string.
    """
    found = status(data, name)
    if found is None:
        raise Discard(f"{name} is missing")
    return found


def text(data: Data, name: str) -> str | None:
    """A text, made storable."""
    value = data.get(name)
    return storable(value) if isinstance(value, str) else None


def flag(data: Data, name: str) -> bool | None:
    """A truth value."""
    value = data.get(name)
    return value if isinstance(value, bool) else None


def moment(data: Data, name: str) -> datetime | None:
    """A time."""
    return parse_timestamp(data.get(name))


def amount(data: Data, name: str) -> Decimal | None:
    """An amount of money, its digits as sent; a number in a string counts as a number.

    Raises:
        Discard: it is out of range.
    """
    value = data.get(name)
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        return None
    try:
        found = Decimal(value)
    except InvalidOperation:
        return None
    if not found.is_finite():
        return None
    exponent = found.as_tuple().exponent
    if found.adjusted() >= _INTEGER_DIGITS or int(exponent) < -_DECIMAL_PLACES:
        raise Discard(f"{name} is out of range")
    return found


def _integer(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and value.isascii() and value.removeprefix("-").isdigit():
        return int(value) if len(value) < 30 else _BIGINT.stop
    if isinstance(value, Decimal):  # 12.0, or more digits than an int is made of
        if value.adjusted() > 30:
            return _BIGINT.stop
        return int(value) if value == value.to_integral_value() else None
    return None


def _in_range(name: str, value: int) -> int:
    if value not in _BIGINT:
        raise Discard(f"{name} is out of range")
    return value
