"""What a source is: how a sender signs, shakes hands and names its events."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from ingest.text import is_storable, storable

Headers = Sequence[tuple[bytes, bytes]]
"""Request headers as ASGI gives them: lower-case names, values as received, repeats kept."""

TYPE_LIMIT = 200
_PART_LIMIT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A signed body that is an event: its type, when it occurred if it says so, and its data."""

    type: str
    occurred_at: datetime | None
    data: dict[str, Any]
    fields: dict[str, Any]
    """The whole parsed body; `data` is one of its fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventName:
    """What dedupe needs: the event id (unique within the source) and a fingerprint of the
    content."""

    event_id: str
    type: str
    fingerprint: bytes
    """SHA-256 over what must not differ between two deliveries of one event."""


class Source(Protocol):
    """A configured sender. One module of this package each."""

    slug: str
    kept_headers: frozenset[bytes]
    """Lower-case names of the request headers that are stored with a delivery."""

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Names of the live secrets, newest first; a name does not give its secret away."""

    def is_signed(self, headers: Headers) -> bool:
        """Whether the request claims a signature at all."""

    def verify(self, headers: Headers, body: bytes, *, now: int) -> str:
        """Return the id of the key that signed the request.

        Args:
            headers: the request's headers.
            body: the raw bytes as received.
            now: Unix time in seconds.

        Raises:
            InvalidSignature: for anything else than a good signature within the time window.
        """

    def handshake(self, body: bytes) -> bytes | None:
        """The JSON body that answers a set-up handshake, or None if `body` is not one."""

    def open(self, body: bytes) -> Envelope:
        """Parse a verified body.

        Raises:
            InvalidEnvelope: the body is no event of this sender.
        """

    def name(self, envelope: Envelope) -> EventName:
        """Name the event so that every delivery of one occurrence gets the same id."""


def join_event_id(event_type: str, *parts: str, mark: str = "") -> str:
    """An event id: the type, then what tells one occurrence from another.

    Ids made of different parts never coincide: the separators are escaped inside parts, `mark`
    keeps the ways of naming apart, and a part that is too long for an index or that no text
    column takes is represented by its digest."""
    return ":".join([_part(event_type), *(mark + _part(part) for part in parts)])


def column_type(event_type: str) -> str:
    """The event type as columns and registries hold it."""
    return storable(event_type, limit=TYPE_LIMIT)


def _part(text: str) -> str:
    if len(text) > _PART_LIMIT or not is_storable(text):
        return "#" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    # Most parts have nothing to escape; translate takes ten times as long to find that out.
    return text.translate(_ESCAPES) if _ESCAPED.search(text) else text


_ESCAPED = re.compile("[%:@#]")
_ESCAPES = str.maketrans({"%": "%25", ":": "%3A", "@": "%40", "#": "%23"})
