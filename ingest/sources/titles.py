"""What happened, in a few words: the titles of events, as lists show them.

A source puts a title together from words of its own and from values of the body. A value is `shown`
to everybody who sees the event, or it is `private`: a text, a name, a number, which viewers do not
see where `INGEST_CONSOLE_MASK_VIEWERS` is set. A value that is absent or no text leaves a title
incomplete: it is None then, and the source offers the next.

    title("Order ", shown(data.get("order_id")), " paid") or title("Order paid")
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic_core.core_schema import (
    CoreSchema,
    is_instance_schema,
    plain_serializer_function_ser_schema,
    str_schema,
)

from ingest import phones
from ingest.sources.bodies import lookup

if TYPE_CHECKING:
    from ingest.sources.base import FieldPath

HIDDEN = "•••"
"""What stands for a private value."""
VALUE_LIMIT = 120
"""Characters of one value, such as a message's text."""
LIMIT = 200
"""Characters of a title."""
_SEEN_DIGITS, _MASKED_DIGITS = 3, 2
"""Of a phone number: enough to tell two customers apart, and what viewers see elsewhere, too."""
_MOST_DIGITS = 24
"""No amount of money is longer."""

_SPACES = re.compile(r"\s+")
# Marks that change the direction of what follows them, and others that nobody sees. The joiners
# U+200C and U+200D stay: words and emoji are spelled with them.
_INVISIBLE = re.compile("[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_AMOUNT = re.compile("-?[0-9]{1,20}([.][0-9]{1,6})?")
_TYPE_MARKS = re.compile(r"[.,_/:\s-]+")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

# ISO 4217: currencies whose smallest unit is not a hundredth.
_WITHOUT_CENTS = frozenset(
    "BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF".split()  # noqa: SIM905 - a list of codes reads better so
)
_THOUSANDTHS = frozenset({"BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"})

_NAMED_KINDS = ("order", "conversation", "contact", "phone")
"""The entities that say what an event without a title of its own is about, the most telling
first."""


class Part(NamedTuple):
    """A piece of a title."""

    text: str
    kind: Literal["words", "shown", "private"] = "words"
    """`words` are the source's own. Others come from the body, in whatever script."""
    masked: str = HIDDEN
    """What stands for a private value."""


@dataclass(frozen=True, slots=True)
class Title:
    """What happened, in words and values."""

    parts: tuple[Part, ...]

    def __str__(self) -> str:
        return "".join(part.text for part in self.parts)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: object) -> CoreSchema:
        """Let the API spell a title as one string."""
        spelled = plain_serializer_function_ser_schema(str, return_schema=str_schema())
        return is_instance_schema(cls, serialization=spelled)

    def masked(self, hide: Callable[[str], str]) -> "Title":
        """Return the title without what is private; `hide` masks numbers in what is left."""
        return Title(
            tuple(
                part._replace(text=part.masked if part.kind == "private" else hide(part.text))
                for part in self.parts
            )
        )


def title(*parts: str | Part | None) -> Title | None:
    """Return a title of words and values, cut to `LIMIT` characters; None: a value is missing."""
    whole: list[Part] = []
    left = LIMIT
    for part in parts:
        if part is None:
            return None
        piece = Part(part) if isinstance(part, str) else part
        whole.append(piece._replace(text=_cut(piece.text, left)))
        left -= len(piece.text)
        if left <= 0:
            break
    return Title(tuple(piece for piece in whole if piece.text))


def shown(value: object) -> Part | None:
    """Return a value that everybody may see: an id, a status, an amount."""
    text = _text(value)
    return None if text is None else Part(text, "shown")


def private(value: object) -> Part | None:
    """Return a value that viewers do not see: what somebody wrote, a name, an address."""
    text = _text(value)
    return None if text is None else Part(text, "private")


def phone(value: object) -> Part | None:
    """Return a phone number, of which the last digits are seen, or what a sender has instead."""
    text = _text(value)
    if text is None:
        return None
    digits = phones.normal_phone(text)
    if not (digits.isascii() and digits.isdigit() and len(digits) > _SEEN_DIGITS):
        return Part(text, "private")
    return Part(f"…{digits[-_SEEN_DIGITS:]}", "private", f"…{digits[-_MASKED_DIGITS:]}")


def person(name: object, number: object) -> Part | None:
    """Return somebody by name, or by number where the name is not told."""
    by_name, by_number = private(name), phone(number)
    if by_name is None or by_number is None:
        return by_name or by_number
    return by_name._replace(masked=by_number.masked)


def amount(value: object, currency: object) -> Part | None:
    """Return an amount of money, such as `1,250.00 SAR`, of a number or its digits."""
    number, code = _number(value), _text(currency)
    if number is None or code is None:
        return None
    return Part(f"{number:,f} {code.upper()}", "shown")


def cents(value: object, currency: object) -> Part | None:
    """Return an amount of money that is told in the smallest unit of its currency."""
    number, code = _number(value), _text(currency)
    if number is None or code is None or number != number.to_integral_value():
        return None
    code = code.upper()
    decimals = 0 if code in _WITHOUT_CENTS else 3 if code in _THOUSANDTHS else 2
    return Part(f"{number.scaleb(-decimals):,.{decimals}f} {code}", "shown")


def words(event_type: str) -> str:
    """Return an event type as words: `invoice.payment_failed` is `Invoice payment failed`."""
    text = _clean(_TYPE_MARKS.sub(" ", event_type))
    return text[:1].upper() + text[1:]


def verb(event_type: str) -> str:
    """Return the last word of an event type, which says what was done: `payment failed`."""
    return _clean(re.split("[./]", event_type)[-1].replace("_", " "))


def by_type(
    event_type: str, fields: Any, entities: Mapping[str, Sequence["FieldPath"]]
) -> Title | None:
    """Return the title that a type and the entities of a body give: `Order 789 created`.

    None: the type has no letter.
    """
    text = words(event_type)
    if not text:
        return None
    for kind in _NAMED_KINDS:
        name = _first(fields, event_type, entities.get(kind, ()), _MAKERS.get(kind, _identifier))
        if name is not None:
            return _about(text, kind, name)
    return title(Part(text, "shown"))


def _about(text: str, kind: str, name: Part) -> Title | None:
    """Return words and what they are about: behind the word for it, if it is there."""
    match = re.search(rf"\b{kind}\b", text, re.IGNORECASE)
    if match is None:
        return title(Part(text, "shown"), f", {kind} ", name)
    rest = text[match.end() :]
    behind = Part(rest, "shown") if rest else ""
    return title(Part(text[: match.end()], "shown"), " ", name, behind)


def _first(
    fields: Any,
    event_type: str,
    paths: Iterable["FieldPath"],
    make: Callable[[object], Part | None],
) -> Part | None:
    for path in paths:
        if fnmatchcase(event_type, path.types):
            name = make(lookup(fields, path.path))
            if name is not None:
                return name
    return None


def _identifier(value: object) -> Part | None:
    """Return what an entity is called. A sender may use any text as an id: one that may be a name
    or an address is not seen by viewers."""
    part = shown(value)
    return part if part is None or _IDENTIFIER.fullmatch(part.text) else private(value)


_IDENTIFIER = re.compile(r"[#\w-]*[0-9][\w-]*")
_MAKERS: Mapping[str, Callable[[object], Part | None]] = {"contact": private, "phone": phone}


def _text(value: object) -> str | None:
    """Return a value of a body as one line of bounded length; None: there is nothing to show."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        return None
    text = value if isinstance(value, str) else _spelled(value)
    # A line of white space is as long as it likes: only its beginning is read.
    return _cut(_clean(text[: 2 * VALUE_LIMIT]), VALUE_LIMIT) or None


def _spelled(number: int | Decimal) -> str:
    if isinstance(number, int):
        return str(number) if number.bit_length() < 400 else ""
    return f"{number:f}" if abs(number.adjusted()) < _MOST_DIGITS else ""


def _number(value: object) -> Decimal | None:
    text = _text(value)
    if text is None or not _AMOUNT.fullmatch(text):
        return None
    return Decimal(text)


def _clean(text: str) -> str:
    visible = _INVISIBLE.sub("", _SPACES.sub(" ", text)).strip()
    return _UNPRINTABLE.sub(_REPLACEMENT, visible)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1].rstrip()}…" if limit > 0 else ""
