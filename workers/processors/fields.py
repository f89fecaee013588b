"""Reading what a payload says.

What makes it unusable is a `Discard`. What is absent says nothing, nor does what is unreadable,
which is counted. The obvious spellings are read: 0 and "true" as truth values, numbers as phone
numbers, digits in strings as numbers.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from ingest.text import is_storable, storable
from ingest.timestamps import parse_timestamp
from workers.control import Discard

_BIGINT = range(-(2**63), 2**63)
_KEY_LIMIT = 500
# What PostgreSQL's numeric holds, before the point and after it.
_INTEGER_DIGITS = 131_072
_DECIMAL_PLACES = 16_383
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_FLAGS = {"true": True, "1": True, "false": False, "0": False}

Data = Mapping[str, Any]
Unreadable = Counter[str]
"""How often a field was there and could not be read, by its name."""
Kind = Callable[[str, Any], Any]
"""Reads a value that is there, given its field's name; None: it is unreadable."""
Fields = Mapping[str, tuple[str, Kind]]
"""By column: the field that it is named after, and the kind of its values."""


def said(
    data: Data,
    fields: Fields,
    unreadable: Unreadable,
    *,
    null_clears: bool = False,
) -> dict[str, Any]:
    """Return what a payload says of the columns in `fields`.

    With `null_clears`, a field that is there and null says that there is no value.

    Raises:
        Discard: a value makes the payload unusable.
    """
    values: dict[str, Any] = {}
    for column, (name, kind) in fields.items():
        value = data.get(name)
        if value is None:
            if null_clears and name in data:
                values[column] = None
            continue
        read = kind(name, value)
        if read is None:
            unreadable[name] += 1
        else:
            values[column] = read
    return values


def entity_id(data: Data, *names: str) -> int:
    """Return the entity's id, under the first of `names` that is there.

    Raises:
        Discard: it is missing, no whole number, or out of range.
    """
    for name in names:
        if data.get(name) is not None:
            number = whole_number(name, data[name])
            if number is None:
                raise Discard(f"{name} is not a whole number")
            return number
    raise Discard(f"{' or '.join(names)} is missing")


def key(data: Data, name: str) -> str:
    """Return a text that identifies the entity.

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


def required_status(data: Data, name: str) -> str:
    """Return the status that the event is about.

    Raises:
        Discard: it is missing or not a string.
    """
    value = data.get(name)
    if value is None:
        raise Discard(f"{name} is missing")
    return status(name, value)


def status(name: str, value: Any) -> str:
    """Return a status.

    Raises:
        Discard: it is not a string.
    """
    if not isinstance(value, str):
        raise Discard(f"{name} is not a string")
    return storable(value)


def whole_number(name: str, value: Any) -> int | None:
    """Return an id.

    Raises:
        Discard: it is out of range.
    """
    number = _integer(value)
    if number is not None and number not in _BIGINT:
        raise Discard(f"{name} is out of range")
    return number


def text(_name: str, value: Any) -> str | None:
    """Return a text, made storable."""
    return storable(value) if isinstance(value, str) else None


def phone(_name: str, value: Any) -> str | None:
    """Return a phone number or another name of a person, as it was sent; a number's digits."""
    if isinstance(value, str):
        return storable(value)
    number = _integer(value)
    return None if number is None or number not in _BIGINT else str(number)


def flag(_name: str, value: Any) -> bool | None:
    """Return a truth value."""
    if isinstance(value, str):
        return _FLAGS.get(value.lower())
    return bool(value) if isinstance(value, int | Decimal) and value in (0, 1) else None


def moment(_name: str, value: Any) -> datetime | None:
    """Return a time."""
    return parse_timestamp(value)


def amount(name: str, value: Any) -> Decimal | None:
    """Return an amount of money, its digits as sent; a number in a string counts as a number.

    Raises:
        Discard: it is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        return None
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        return None
    try:
        number = Decimal(value)
    except InvalidOperation:  # an exponent of more than 18 digits
        raise Discard(f"{name} is out of range") from None
    exponent = int(number.as_tuple().exponent)
    if number.adjusted() >= _INTEGER_DIGITS or exponent < -_DECIMAL_PLACES:
        raise Discard(f"{name} is out of range")
    return number


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
