"""`conversations`: with whom, and where they stand."""

from collections.abc import Sequence

from sqlalchemy import Connection

from ingest.store import tables
from workers.event import Event
from workers.processors import fields
from workers.processors.merge import LAST_EVENT, Entities, Group, Upsert, place, sql_place
from workers.registry import processor

_CREATED = Group(
    columns=("contact_id", "phone_number", "created_at", "created_event_id"),
    place=sql_place("created_at", "created_event_id"),
)
_UPDATED = Group(
    columns=("status", "updated_at", "updated_event_id"),
    place=sql_place("updated_at", "updated_event_id"),
)
_merge = Upsert(tables.conversations, "conversation_id", _CREATED, _UPDATED, LAST_EVENT)


@processor("conversation.created", "conversation.updated", name="conversations", batch=True)
def keep_conversations(events: Sequence[Event], db: Connection) -> None:
    """Keep a row for each conversation, whichever of its events comes first."""
    conversations = Entities()
    for event in events:
        conversation_id = fields.entity_id(event.data, "conversation_id")
        if event.type == "conversation.created":
            moment = fields.moment(event.data, "created_at")
            conversations.offer(
                conversation_id,
                _CREATED,
                place(moment, event),
                {
                    "contact_id": fields.optional_id(event.data, "contact_id"),
                    "phone_number": fields.text(event.data, "phone_number"),
                    "created_at": moment,
                    "created_event_id": event.event_id,
                },
            )
        else:
            moment = fields.moment(event.data, "updated_at")
            conversations.offer(
                conversation_id,
                _UPDATED,
                place(moment, event),
                {
                    "status": fields.status(event.data, "status"),
                    "updated_at": moment,
                    "updated_event_id": event.event_id,
                },
            )
        conversations.touch(conversation_id, moment, event)
    _merge(db, conversations.rows())
