"""The parts that a query is made of: where each begins, what is quoted, what is negated."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ingest.phones import normal_phone


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A filter with its value, or a text."""

    spelled: str
    position: int
    """Where in the query it begins, in characters."""
    is_negated: bool
    key: str | None
    """The name before the colon; None: there is none."""
    value: str
    is_quoted: bool
    is_open: bool
    """Its quote is not closed."""


def parts(text: str) -> Iterator[Part]:
    """Return the parts of a query."""
    position = 0
    while position <= len(text) and (match := _PART.search(text, position)):
        end = match.end()
        key, quoted, plain = match["key"], match["quoted"], match["plain"]
        if plain and key is not None and key.lower() == "phone":
            end = _end_of_phone(text, match.start("plain"), end)
            plain = text[match.start("plain") : end]
        position = end if match[0] else end + 1
        if match[0]:
            yield Part(
                spelled=text[match.start() : end],
                position=match.start(),
                is_negated=match["minus"] is not None,
                key=key,
                value=plain if quoted is None else _ESCAPED.sub(r"\1", quoted),
                is_quoted=quoted is not None,
                is_open=quoted is not None and not match["closed"],
            )


def is_of_a_short_phone(value: str) -> bool:
    """Return whether what follows a number could be read as more of it."""
    return len(value) <= _SHORT_OF_A_PHONE


def quoted(value: str, *, as_text: bool = False) -> str:
    """Return a value as a query spells it, in quotes where it needs them; `as_text` also where it
    would be read as a filter or as negated."""
    if _PLAIN.fullmatch(value) and not (as_text and (":" in value or value.startswith("-"))):
        return value
    return in_quotes(value)


def in_quotes(value: str) -> str:
    """Return a value in quotes."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _end_of_phone(text: str, begin: int, end: int) -> int:
    """Where a phone number ends that is written in groups (`+966 51 111 0001`), the first of which
    ends at `end`: groups of digits belong to it until it is as long as a number may be."""
    if len(normal_phone(text[begin:end])) > _SHORT_OF_A_PHONE:
        return end
    while (group := _PHONE_GROUP.match(text, end)) is not None:
        if len(normal_phone(text[begin : group.end()])) > _LONGEST_PHONE:
            break
        end = group.end()
    return end


# A quote begins a text, or a value after a colon; it ends the part. Possessive, so that a text is
# read once, whatever it is.
_PART = re.compile(
    r"""
    (?P<minus> - (?= [^\s:] ) )?+
    (?: (?P<key> [^\s":]++ ) : )?+
    (?: " (?P<quoted> (?: [^"\\] | \\. )*+ \\?+ ) (?P<closed> "?+ ) | (?P<plain> [^\s"] \S*+ | ) )
    """,
    re.DOTALL | re.VERBOSE,
)
# Of a number of no more digits there must be further groups; E.164 ends at fifteen.
_SHORT_OF_A_PHONE = 6
_LONGEST_PHONE = 15
_PHONE_GROUP = re.compile(
    r"[^\S\n]+[^\w\s\":]*\d[\d()\-.\u200b-\u200f\u202a-\u202e\u2066-\u2069]*(?!\S)"
)
_ESCAPED = re.compile(r'\\(["\\])')
_PLAIN = re.compile(r'[^\s"]\S*')
