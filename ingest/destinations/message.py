"""The request that tells a destination of an event."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from ingest import __version__, standard_webhooks, strict_json

USER_AGENT = f"webhook-ingest/{__version__}"
JSON = "application/json"


class ForwardedEvent(Protocol):
    """What is told of an event; a processor's is one."""

    @property
    def id(self) -> str:
        """Ours."""

    @property
    def source(self) -> str:
        """Whose event it is."""

    @property
    def event_id(self) -> str:
        """The sender's name for it."""

    @property
    def type(self) -> str:
        """Its type."""

    @property
    def occurred_at(self) -> datetime | None:
        """When it happened, if the sender said so."""

    @property
    def received_at(self) -> datetime:
        """When it was received."""

    @property
    def data(self) -> dict[str, Any]:
        """What the sender says of it."""

    @property
    def body(self) -> bytes:
        """As it was received."""

    @property
    def is_edited(self) -> bool:
        """Whether an operator edited it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """The body of a request, and what kind it is."""

    body: bytes
    content_type: str


def of_event(event: ForwardedEvent) -> Message:
    """Return an event as documented in docs/destinations.md: the same bytes in every attempt."""
    occurred_at = event.occurred_at
    document = {
        "id": event.id,
        "type": event.type,
        "source": event.source,
        "event_id": event.event_id,
        "occurred_at": occurred_at.isoformat() if occurred_at else None,
        "received_at": event.received_at.isoformat(),
        "is_edited": event.is_edited,
        "data": event.data,
    }
    return Message(body=strict_json.canonical(document), content_type=JSON)


def headers(
    message: Message,
    message_id: str,
    keys: Sequence[bytes],
    *,
    timestamp: int,
    attempt: int,
    more: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the headers of a request.

    Args:
        message: what is sent.
        message_id: the same in every attempt and replay.
        keys: what it is signed with, newest first.
        timestamp: of this attempt, Unix time in seconds.
        attempt: the number of this attempt, from 1.
        more: headers that the description adds.
    """
    return {
        "user-agent": USER_AGENT,
        **(more or {}),
        "content-type": message.content_type,
        **standard_webhooks.headers(message_id, message.body, keys, timestamp=timestamp),
        "webhook-attempt": str(attempt),
    }
