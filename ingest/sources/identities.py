"""Names the events of a verified body."""

from typing import NamedTuple

from ingest import ids
from ingest.errors import InvalidEnvelope
from ingest.sources.base import EventIdentity, Headers, Source

NameOrError = EventIdentity | InvalidEnvelope
"""An event's name, or why a body is no event."""


class Element(NamedTuple):
    """One of several events of a body."""

    body: bytes
    name: NameOrError


NamedBody = NameOrError | list[Element]
"""What a body holds: one event, none, or several."""


def name_body(source: Source, body: bytes, headers: Headers = ()) -> NamedBody:
    """Return the identity of a verified body's event, or why it is none, or its elements; `headers`
    are those that the source keeps."""
    try:
        bodies = source.split(body)
    except InvalidEnvelope as error:
        return error
    if not bodies:
        return _name(source, body, headers)
    if len(bodies) > ids.MAX_ELEMENTS:
        return InvalidEnvelope(
            f"The body holds more than {ids.MAX_ELEMENTS:,} events.", reason="too_many_events"
        )
    return [Element(element, _name(source, element, headers)) for element in bodies]


def _name(source: Source, body: bytes, headers: Headers) -> NameOrError:
    try:
        return source.identify(source.parse(body), headers)
    except InvalidEnvelope as error:
        return error
