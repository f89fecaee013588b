"""Which event set which column of the built-in read model, as far as its rows tell.

The processors' order of events (workers.processors.merge) says who sets what. What is needed here
to read a row is repeated here, because `ingest` does not import `workers`; a test holds that both
say the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """How a table's rows tell which event set their columns, and what its events say of them."""

    origins: Mapping[str, tuple[str, ...]]
    """By column: the columns that may hold the id of the event which set it; the first that does.
    Empty: only `versions` tells."""
    key_fields: tuple[str, ...] = ()
    """The fields of `data` that may name the row, the first that is there."""
    says: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By event type: the columns that its event speaks of, each with its field of `data`. Empty for
    senders that nest them."""

    def origin_of(self, row: Mapping[str, Any], column: str) -> str | None:
        """Return the id of the event that set a column; None: no row tells."""
        if row[column] is None:
            return None
        versions = row.get("versions")
        if versions is not None:
            # The version ends with the event id, after a space; of some it leaves the id out.
            event_id = str(versions.get(column, "")).partition(" ")[2]
            if event_id or not self.origins[column]:
                return event_id or None
        return next((row[name] for name in self.origins[column] if row[name] is not None), None)


def _of(*columns: str, by: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    return dict.fromkeys(columns, by)


_RECEIVED, _PROGRESS = ("received_event_id",), ("status_event_id",)
_CREATED, _UPDATED = ("created_event_id",), ("updated_event_id",)
_CONTACT = (
    *("name", "phone", "email", "contact_group_id", "is_favorite", "avatar"),
    *("created_at", "updated_at"),
)
_SAME_NAMES_OF_CONTACT = {column: column for column in _CONTACT}

PROVENANCE: Mapping[str, Provenance] = MappingProxyType(
    {
        "messages": Provenance(
            key_fields=("message_id",),
            origins={
                **_of("conversation_id", "from_number", "to_number", by=_RECEIVED),
                **_of("type", "body", "timestamp", by=_RECEIVED),
                **_of("status", "status_at", by=_PROGRESS),
            },
            says={
                "message.received": {
                    "conversation_id": "conversation_id",
                    "from_number": "from",
                    "to_number": "to",
                    "type": "type",
                    "body": "body",
                    "timestamp": "timestamp",
                },
                "message.status.updated": {"status": "status", "status_at": "timestamp"},
            },
        ),
        "conversations": Provenance(
            key_fields=("conversation_id",),
            origins={
                **_of("contact_id", "phone_number", "created_at", by=_CREATED),
                **_of("status", by=(*_UPDATED, *_CREATED)),
                **_of("updated_at", by=_UPDATED),
            },
            says={
                "conversation.created": {
                    "contact_id": "contact_id",
                    "phone_number": "phone_number",
                    "created_at": "created_at",
                    "status": "status",
                },
                "conversation.updated": {"status": "status", "updated_at": "updated_at"},
            },
        ),
        "orders": Provenance(
            key_fields=("order_id",),
            origins={
                **_of("conversation_id", "total", "currency", "created_at", by=_CREATED),
                **_of("status", by=(*_UPDATED, *_CREATED)),
                **_of("updated_at", by=_UPDATED),
            },
            says={
                "order.created": {
                    "conversation_id": "conversation_id",
                    "total": "total",
                    "currency": "currency",
                    "created_at": "created_at",
                    "status": "status",
                },
                "order.status.updated": {"status": "new_status", "updated_at": "updated_at"},
            },
        ),
        "contacts": Provenance(
            key_fields=("contact_id", "id"),
            origins=_of(*_CONTACT, by=()),
            says={
                "contact.created": _SAME_NAMES_OF_CONTACT,
                "contact.updated": _SAME_NAMES_OF_CONTACT,
            },
        ),
        "whatsapp_messages": Provenance(
            origins={
                **_of("direction", "waba_id", "phone_number_id", by=(*_PROGRESS, *_RECEIVED)),
                **_of("contact_user_id", "contact_phone", "group_id", by=(*_PROGRESS, *_RECEIVED)),
                **_of("type", "text", "media_id", "mime_type", "sha256", by=_RECEIVED),
                **_of("filename", "reply_to", "content", "timestamp", by=_RECEIVED),
                **_of("status", "status_at", by=_PROGRESS),
                **_of("error_code", "error_title", "error_details", by=("failed_event_id",)),
                **_of("failed_at", by=("failed_event_id",)),
            }
        ),
        "whatsapp_contacts": Provenance(
            origins=_of("user_id", "phone", "name", "username", "parent_user_id", by=())
        ),
    }
)
"""By table."""
