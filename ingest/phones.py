"""Bring the spellings of a phone number into one form."""

import re
import unicodedata

_LIMIT = 200
"""Only this many characters are read, so that any index can hold the result."""
_INVISIBLE = re.compile("[\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
_ARABIC, _PERSIAN = 0x0660, 0x06F0
_DIGITS = {zero + digit: str(digit) for zero in (_ARABIC, _PERSIAN) for digit in range(10)}
_MARKS = re.compile("^\\+|[ \t\n\r\f\v()./\u2010-\u2015\u2212-]")
# What may stand between two digits of a number in a text: the marks above, other spaces, invisible
# characters, and the URL-encoded bytes of one of them.
_BETWEEN = (
    r"(?:[\s()./\u2010-\u2015\u2212_\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff-]"
    r"|%[0-9A-Fa-f]{2}){0,6}"
)
IN_TEXT = re.compile(rf"\+?\d(?:{_BETWEEN}\d){{6,}}")
"""Matches a possible phone number in a text: seven or more digits of any script, also in groups."""
_NUMBER = re.compile("[0-9]+")
_INTERNATIONAL = re.compile("^(?:00)+")


def normal_phone(written: str) -> str:
    """Return the digits of a phone number, without its international prefix (`+` or `00`).

    A text that is not a number stays as it is (`SA.abc`, an id that WhatsApp gives a person). The
    function of this name in the database (ingest.store.triggers) does the same.
    """
    visible = unicodedata.normalize("NFKC", _INVISIBLE.sub("", written[:_LIMIT]))
    seen = visible.translate(_DIGITS).strip(" ")
    digits = _MARKS.sub("", seen)
    return _INTERNATIONAL.sub("", digits) if _NUMBER.fullmatch(digits) else seen
