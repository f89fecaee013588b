"""Decode a body, and name its event, by a description."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from ingest import strict_json
from ingest.sources.base import Headers
from ingest.sources.bodies import json_object, refuse, walk
from ingest.sources.described import template
from ingest.sources.described.description import Description

_MAX_FORM_FIELDS = 1_000

Getter = Callable[[Mapping[str, Any], Headers], str | None]


def decode(body: bytes, description: Description) -> dict[str, Any]:
    """Return the fields of a body.

    Raises:
        InvalidEnvelope: it is neither a JSON object nor a form, as the description has it.
    """
    is_json = description.decode == "json" or (
        description.decode == "any" and body.lstrip()[:1] in (b"{", b"[", b"")
    )
    if is_json:
        return json_object(body)
    form = _form(body)
    if description.form_field in form:
        return json_object(str(form[description.form_field]).encode("utf-8", "surrogatepass"))
    return form


def _form(body: bytes) -> dict[str, Any]:
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MAX_FORM_FIELDS)
    except ValueError:
        refuse("body_not_form", "the body is not a form")
    form: dict[str, Any] = {}
    for name, value in pairs:
        form.setdefault(name, value)
    return form


def namer(
    templates: Sequence[str], ignored: frozenset[str] = frozenset()
) -> Callable[[Mapping[str, Any], Headers], list[str] | None]:
    """Return what finds the parts of a name: those of the first template that is complete."""
    compiled = [[_getter(part, ignored) for part in template.parse(line)] for line in templates]

    if len(compiled) == 1 and len(compiled[0]) == 1:  # most senders name an event by one value
        ((only,),) = compiled

        def name_by_one(fields: Mapping[str, Any], headers: Headers) -> list[str] | None:
            part = only(fields, headers)
            return None if part is None else [part]

        return name_by_one

    def name(fields: Mapping[str, Any], headers: Headers) -> list[str] | None:
        for getters in compiled:
            parts = [getter(fields, headers) for getter in getters]
            if None not in parts:
                return [part for part in parts if part is not None]
        return None

    return name


def content(fields: Mapping[str, Any], ignored: frozenset[str]) -> bytes:
    """Return the digest of what does not differ between two deliveries of an event."""
    if ignored:
        fields = {name: value for name, value in fields.items() if name not in ignored}
    return hashlib.sha256(strict_json.canonical(fields)).digest()


def _getter(part: template.Part, ignored: frozenset[str]) -> Getter:
    names = part.names
    if part.kind == "literal":
        return lambda _fields, _headers: names[0]
    if part.kind == "content":
        return lambda fields, _headers: content(fields, ignored).hex()
    if part.kind == "header":
        wanted = tuple(name.encode() for name in names)
        return lambda _fields, headers: _header(headers, wanted)
    if part.kind == "key":
        return lambda fields, _headers: next((name for name in names if name in fields), None)
    paths = [name.split(".") for name in names]
    if len(paths) == 1:
        (only,) = paths
        return lambda fields, _headers: _text(walk(fields, only))
    return lambda fields, _headers: next(
        (text for path in paths if (text := _text(walk(fields, path))) is not None), None
    )


def _header(headers: Headers, names: Sequence[bytes]) -> str | None:
    for wanted in names:
        values = [value for name, value in headers if name == wanted]
        if values:
            return values[0].decode("latin-1") if len(values) == 1 and values[0] else None
    return None


def _text(value: object) -> str | None:
    if isinstance(value, str) and value:
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None
