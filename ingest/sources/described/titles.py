"""Title an event by a description."""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from ingest.sources.bodies import lookup
from ingest.sources.described import template
from ingest.sources.titles import (
    Part,
    Title,
    amount,
    cents,
    phone,
    private,
    shown,
    title,
    verb,
    words,
)

Titler = Callable[[str, Mapping[str, Any]], Title | None]
_Maker = Callable[[str, Mapping[str, Any]], str | Part | None]
_Forms = Sequence[Sequence[_Maker]]


def titler(templates: Mapping[str, Sequence[str]]) -> Titler:
    """Return what titles an event of a type by its fields: by the first template of the first
    pattern of its type that is complete; the type's own name comes before patterns."""
    compiled = {
        pattern: [[_maker(part) for part in template.parse_title(line)] for line in lines]
        for pattern, lines in templates.items()
    }

    def make(event_type: str, fields: Mapping[str, Any]) -> Title | None:
        for forms in _meant(compiled, event_type):
            for form in forms:
                whole = title(*(part(event_type, fields) for part in form))
                if whole is not None:
                    return whole
        return None

    return make


def _meant(compiled: Mapping[str, _Forms], event_type: str) -> list[_Forms]:
    own = [compiled[event_type]] if event_type in compiled else []
    return own + [
        forms
        for pattern, forms in compiled.items()
        if pattern != event_type and fnmatchcase(event_type, pattern)
    ]


def _maker(part: template.Part) -> _Maker:
    """Return what makes a piece of a title of an event's type and fields."""
    if part.kind == "literal":
        return lambda _type, _fields: part.names[0]
    if part.kind in ("words", "verb"):
        spell = words if part.kind == "words" else verb
        return lambda event_type, _fields: shown(spell(event_type))
    if part.kind in ("amount", "cents"):
        count = amount if part.kind == "amount" else cents
        value, _, currency = part.names[0].partition(",")
        return lambda _type, fields: count(lookup(fields, value), lookup(fields, currency.strip()))
    make = {"path": private, "shown": shown, "phone": phone}[part.kind]
    return lambda _type, fields: next(
        filter(None, (make(lookup(fields, name)) for name in part.names)), None
    )
