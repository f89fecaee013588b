"""What a decrypted body holds: the conditions of ingest.store.search.body_conditions, in Python.

The plain text must not go back to PostgreSQL, whose log may hold the values of statements.
"""

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from ingest import strict_json
from ingest.phones import normal_phone

_ESCAPE = b"\\u"
_INDEX = re.compile("-?[0-9]{1,9}")
_REFUSED = re.compile("[\x00\ud800-\udfff]")
"""Characters that jsonb refuses, and `body_json` replaces."""
_MOST_DIGITS = 1_000
"""No sender spells out a number that is longer."""


class Run(NamedTuple):
    """Bytes that a body holds if it holds a value."""

    text: bytes
    may_be_escaped: bool
    """Whether JSON may spell them otherwise, with `\\u`."""

    def is_absent(self, body: bytes) -> bool:
        """Return whether a body shows that it does not hold the value."""
        return self.text not in body and not (self.may_be_escaped and _ESCAPE in body)


def contains(spellings: Iterable[bytes], body: bytes) -> bool:
    """Return whether a body holds one of the spellings of a text."""
    return any(spelling in body for spelling in spellings)


def has_field(
    paths: Sequence[Sequence[str]],
    value: str,
    body: bytes,
    *,
    run: Run | None,
    is_beginning: bool,
    number: Decimal | None,
) -> bool:
    """Return whether a body has a value, or one that begins with it, under one of the paths.

    `number` is the value where that is a number; `run` is what a body holds that has it.
    """
    if run is not None and run.is_absent(body):
        return False
    return any(_is_meant(member, value, is_beginning, number) for member in members(body, paths))


def has_phone(paths: Sequence[Sequence[str]], value: str, body: bytes) -> bool:
    """Return whether a body has a phone number under one of the paths, however it is written."""
    wanted = normal_phone(value)
    texts = map(text_of, members(body, paths))
    return any(text is not None and normal_phone(text) == wanted for text in texts)


def _is_meant(member: Any, value: str, is_beginning: bool, number: Decimal | None) -> bool:
    if number is not None and _is_number(member):
        return bool(member == number)
    if isinstance(member, list | dict):
        return is_beginning and not value
    text = text_of(member)
    if text is None:
        return False
    return text.startswith(value) if is_beginning else text == value


def members(body: bytes, paths: Sequence[Sequence[str]]) -> list[Any]:
    """Return what a body has under each of the paths; None where there is nothing."""
    try:
        document = strict_json.loads(body)
    except strict_json.InvalidJson:
        return []
    return [_member(document, path) for path in paths]


def _member(document: Any, path: Sequence[str]) -> Any:
    for step in path:
        if isinstance(document, dict):
            document = document.get(step)
        elif isinstance(document, list) and _INDEX.fullmatch(step):
            position = int(step)
            is_there = -len(document) <= position < len(document)
            document = document[position] if is_there else None
        else:
            return None
    return document


def _is_number(member: Any) -> bool:
    return isinstance(member, int | Decimal) and not isinstance(member, bool)


def text_of(member: Any) -> str | None:
    """Return a value as jsonb spells it; None: it is null, or a list or an object."""
    if isinstance(member, str):
        return _REFUSED.sub("\ufffd", member)
    if isinstance(member, bool):
        return "true" if member else "false"
    if isinstance(member, Decimal):
        return f"{member:f}" if abs(member.adjusted()) < _MOST_DIGITS else None
    return str(member) if isinstance(member, int) else None
