"""Find phone numbers and ids in raw texts, in the spellings in which senders and people write them.

A number is recognised by its digits, whatever stands between them: spaces, marks, invisible
characters; escaped as JSON does, or percent-encoded as forms do; in the digits of Arabic, Persian
and full width. The ids that WhatsApp gives to messages (`wamid.…`) hold a number in base64.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from urllib.parse import quote, unquote

from ingest import strict_json

_ESCAPED_CHARACTER = re.compile(r"\\+u([0-9a-fA-F]{4})")
_ESCAPED_MARK = re.compile(r"\\+[nrtbf/]")
_ZEROS = (0x0660, 0x06F0, 0xFF10)
_DIGITS = {zero + digit: str(digit) for zero in _ZEROS for digit in range(10)}
_BETWEEN = (
    r"[\s()./+_\u00ad\u061c\u180e\u200b-\u200f\u2010-\u2015\u2028-\u202e\u2060-\u206f"
    r"\u2212\ufeff-]{0,6}"
)
_BEFORE = re.compile(rf"(?:^|[^0-9])(?:0{_BETWEEN}0{_BETWEEN})?$")
_FOREIGN_DIGIT = re.compile("[\u0660-\u0669\u06f0-\u06f9\uff10-\uff19]")
_BASE64_RUN = re.compile("[A-Za-z0-9+/_-]{8,}")
_URL_SAFE = str.maketrans("-_", "+/")


class Spellings:
    """Recognises phone numbers and ids in texts."""

    def __init__(self, phones: Iterable[str], ids: Iterable[str] = ()) -> None:
        """`phones` are digits; `ids` are texts that nobody would write by chance."""
        phones, ids = sorted(phones), sorted(ids)
        self._numbers = [re.compile(_BETWEEN.join(phone) + "(?![0-9])") for phone in phones]
        self._tokens = [re.compile(_token(one)) for id_ in ids for one in _spelled(id_)]
        self._needles = [(phone, needle) for phone in phones for needle in _needles(phone)]

    def are_in(self, text: str | bytes | None) -> bool:
        """Return whether a text holds one of them."""
        if not text:
            return False
        plain = text if isinstance(text, str) else text.decode("utf-8", "replace")
        readable = _readable(plain)
        return (
            any(_begins(match) for number in self._numbers for match in number.finditer(readable))
            or any(token.search(plain) or token.search(readable) for token in self._tokens)
            or any(
                needle in plain and _holds_encoded(plain, phone) for phone, needle in self._needles
            )
        )


def _readable(text: str) -> str:
    """Return a text without escapes, and with the digits of ASCII."""
    if "\\" in text:
        text = _ESCAPED_CHARACTER.sub(lambda match: chr(int(match[1], 16)), text)
        text = _ESCAPED_MARK.sub(" ", text)
    if "%" in text:
        text = unquote(text)
    return text.translate(_DIGITS) if _FOREIGN_DIGIT.search(text) else text


def _begins(match: re.Match[str]) -> bool:
    """Return whether a number begins where it was found: only an international prefix may stand
    before it. (In the pattern of the number this would take ten times as long.)"""
    return _BEFORE.search(match.string, max(0, match.start() - 20), match.start()) is not None


def _token(text: str) -> str:
    return rf"(?<![A-Za-z0-9]){re.escape(text)}(?![A-Za-z0-9])"


def _spelled(text: str) -> Iterator[str]:
    """Yield a text as it is, and as JSON and forms escape it."""
    escaped = strict_json.canonical(text)[1:-1].decode("ascii", "replace")
    yield from dict.fromkeys((text, escaped, quote(text, safe="")))


def _needles(digits: str) -> Iterator[str]:
    """Yield what the base64 of any text that holds `digits` contains, by their place in it."""
    for offset in range(3):
        encoded = b64encode(b"\0" * offset + digits.encode()).decode()
        first, last = -(-8 * offset // 6), 8 * (offset + len(digits)) // 6
        yield encoded[first:last]


def _holds_encoded(text: str, digits: str) -> bool:
    """Return whether a run of base64 in a text holds exactly this number."""
    exact = re.compile(rb"(?<![0-9])" + digits.encode() + rb"(?![0-9])")
    return any(
        exact.search(decoded)
        for run in _BASE64_RUN.findall(text)
        for decoded in _decodings(run.translate(_URL_SAFE))
    )


def _decodings(run: str) -> Iterator[bytes]:
    """Yield what a run of base64 may mean, whichever of its first four characters begins it."""
    for start in range(4):
        part = run[start:]
        part = part[: len(part) // 4 * 4] if len(part) % 4 == 1 else part
        yield b64decode(part + "=" * (-len(part) % 4))
