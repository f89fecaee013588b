"""What a raw body names in the fields that its source declares."""

import fnmatch
from collections.abc import Mapping

from ingest.erasure.person import Named, identifiers
from ingest.errors import InvalidEnvelope
from ingest.sources.base import FieldPath, Source
from ingest.sources.bodies import lookup

KINDS = ("phone", "contact", "conversation", "order", "message")


def scope_of(slug: str, source: Source | None) -> str:
    """Return whose ids a source's bodies name: those of its read model, or its own."""
    return (source.read_model if source else None) or slug


def named_in(source: Source | None, event_type: str | None, body: bytes) -> Named:
    """Return what a body names. One that cannot be read names nothing."""
    if source is None:
        return {}
    try:
        fields = source.parse(body).fields
    except InvalidEnvelope:
        return {}
    paths: Mapping[str, tuple[FieldPath, ...]] = {
        **{kind: tuple(source.entities.get(kind, ())) for kind in KINDS},
        "person": tuple(source.persons),
    }
    return {
        kind: frozenset(
            identifier
            for path in of_kind
            if _is_of_type(event_type, path.types)
            for identifier in identifiers(kind, lookup(fields, path.path))
        )
        for kind, of_kind in paths.items()
    }


def _is_of_type(event_type: str | None, pattern: str) -> bool:
    return pattern == "*" or (event_type is not None and fnmatch.fnmatchcase(event_type, pattern))
