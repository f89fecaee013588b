"""Parse JSON strictly: UTF-8 only, no NaN, a depth limit, and numbers that keep their digits.

The standard library defines what is read and how it is spelled. msgspec does both first, in a third
of the time or less; whatever it refuses or would spell otherwise is left to the standard library.
"""

import json
import re
from decimal import Decimal, InvalidOperation
from json.encoder import encode_basestring_ascii
from typing import Any, NoReturn

import msgspec

# CPython's own limit differs by version: 1,000 in 3.11, no safe one in some later versions.
# Documented payloads nest twice. 64 leaves room and limits the recursion of any later reader.
MAX_DEPTH = 64

# Possessive, and the closing quote optional, so that a hostile body is scanned once, never
# backtracked.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
# From a character that only the standard library escapes, to an escape or the end of the string.
_ESCAPED = re.compile(r'[^\x00-\x7e][^"\\]*+')
# Bytes of characters that Python's backslashes spell otherwise than JSON's: U+007F to U+00FF, and
# those above U+FFFF. Without them, escaping takes a fifth of the time.
_ESCAPED_OTHERWISE = b"\x7f\xc2\xc3\xf0\xf1\xf2\xf3\xf4"
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_TOO_DEEP = b"[" * (MAX_DEPTH + 1)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))


_MARK = b"\xef\xbb\xbf"


class InvalidJson(ValueError):
    """The bytes are not JSON as this module accepts it. The message says why and quotes nothing."""


def loads(raw: bytes) -> Any:
    """Parse `raw`. Numbers with a fraction or an exponent become `Decimal`, integers `int`.

    A byte order mark at the beginning is ignored, as RFC 8259 allows.

    Raises:
        InvalidJson: not UTF-8, not JSON, NaN or Infinity, or nested deeper than `MAX_DEPTH`.
    """
    try:
        value = _FAST_DECODER.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return _loads_slowly(raw)
    if _may_be_deep(raw):
        _refuse_deep_value(value)
    return value


def canonical(value: Any) -> bytes:
    """Return the canonical form of a value: sorted keys, no white space, ASCII, original digits.

    Stored fingerprints and ids are digests of it, so it must never change.
    """
    try:
        spelled = _FAST_ENCODER.encode(value)
    except ValueError:  # half a surrogate pair
        return _canonical_slowly(value)
    if spelled.isascii() and b"\x7f" not in spelled:
        return spelled
    if len(spelled.translate(None, _ESCAPED_OTHERWISE)) == len(spelled):
        # Two thirds of the time of ASCII with "backslashreplace".
        return spelled.decode().encode("raw_unicode_escape")
    return _ESCAPED.sub(_escape, spelled.decode("utf-8")).encode("ascii")


def count(raw: bytes, mark: bytes, *, most: int) -> int:
    """Return how often a byte is in a text, at most `most`.

    In 64 kB of text this takes 3 us, and `bytes.count` 30.
    """
    return len(raw) - len(raw.replace(mark, b"", most))


def _loads_slowly(raw: bytes) -> Any:
    _refuse_deep_text(raw)
    try:
        return _parse(raw.removeprefix(_MARK).decode("utf-8"))
    except UnicodeDecodeError:
        raise InvalidJson("the body is not UTF-8") from None
    except RecursionError:
        raise InvalidJson("the body is nested too deeply") from None
    except ValueError:
        raise InvalidJson("the body is not JSON") from None


def _escape(text: re.Match[str]) -> str:
    return encode_basestring_ascii(text.group())[1:-1]


def _canonical_slowly(value: Any) -> bytes:
    try:
        return _ENCODER.encode(value).encode("ascii")
    except _HasDecimals:
        return _spell(value).encode("ascii")


def _parse(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError:
        raise
    except ValueError:
        # int() refuses more than 4,300 digits; such a number is still JSON.
        return _LONG_DECODER.decode(text)


def _may_be_deep(raw: bytes) -> bool:
    """Return whether there are enough opening brackets to nest too deeply."""
    most = MAX_DEPTH + 1
    return count(raw, b"[", most=most) + count(raw, b"{", most=most) > MAX_DEPTH


def _refuse_deep_value(value: Any) -> None:
    level: list[Any] = [[value]]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return
    raise InvalidJson("the body is nested too deeply")


def _refuse_deep_text(raw: bytes) -> None:
    if not _may_be_deep(raw):
        return
    rest = _STRING.sub(b"", raw).translate(_BRACKETS, _NOT_BRACKETS)
    for _ in range(MAX_DEPTH):  # each round removes the innermost level
        if not rest:
            return
        if _TOO_DEEP in rest:  # a megabyte of it would take all rounds, 0.2 s
            break
        rest = rest.replace(b"[]", b"")
    if rest:
        raise InvalidJson("the body is nested too deeply")


def _decimal(digits: str) -> Decimal | str:
    try:
        return Decimal(digits)
    except InvalidOperation:  # an exponent of more than 18 digits
        return digits


def _integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= 4_000 else Decimal(digits)


def _refuse_constant(_name: str) -> NoReturn:
    raise InvalidJson("the body is not JSON")


class _HasDecimals(Exception):
    """The standard encoder, which is ten times as fast, cannot write the digits of a decimal."""


def _leave_to_us(value: object) -> NoReturn:
    if isinstance(value, Decimal):
        raise _HasDecimals
    raise TypeError(f"not a parsed JSON value: {type(value).__name__}")


def _spell(value: Any) -> str:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, dict):
        fields = (f"{_ENCODER.encode(key)}:{_spell(value[key])}" for key in sorted(value))
        return "{" + ",".join(fields) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_spell, value)) + "]"
    return _ENCODER.encode(value)


_FAST_DECODER = msgspec.json.Decoder(float_hook=_decimal)
_FAST_ENCODER = msgspec.json.Encoder(order="sorted", decimal_format="number")
_DECODER = json.JSONDecoder(parse_float=_decimal, parse_constant=_refuse_constant)
_LONG_DECODER = json.JSONDecoder(
    parse_float=_decimal, parse_int=_integer, parse_constant=_refuse_constant
)
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=_leave_to_us)
