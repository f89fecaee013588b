"""`conversations`: with whom, and where they stand."""

from collections.abc import Sequence

from sqlalchemy import Connection

from ingest.store import schema
from workers.event import Event
from workers.processors import feeds, fields, unreadable
from workers.processors.merge import Entities, Group, Origin, Upsert, last_event_place
from workers.registry import processor

_CREATED_FIELDS: fields.Fields = {
    "contact_id": ("contact_id", fields.whole_number),
    "phone_number": ("phone_number", fields.phone),
    "created_at": ("created_at", fields.moment),
}
_STATUS_FIELDS: fields.Fields = {"status": ("status", fields.status)}
_UPDATED_FIELDS: fields.Fields = {"updated_at": ("updated_at", fields.moment)}
_OF_CREATION = {**_CREATED_FIELDS, **_STATUS_FIELDS}
_OF_UPDATE = {**_UPDATED_FIELDS, **_STATUS_FIELDS}
# The status that a conversation is created with counts as of then; of one moment an update comes
# after the creation.
_CREATED = Origin(time="created_at", event_id="created_event_id", tie="'0'")
_UPDATED = Origin(time="updated_at", event_id="updated_event_id", tie="'1'")
_merge = Upsert(
    schema.conversations,
    "conversation_id",
    Group(columns=(*_CREATED_FIELDS, "created_event_id"), origins=(_CREATED,)),
    Group(columns=("status",), origins=(_UPDATED, _CREATED)),
    Group(columns=(*_UPDATED_FIELDS, "updated_event_id"), origins=(_UPDATED,)),
    last_event=last_event_place(
        after=["{row}.last_event_id IS DISTINCT FROM {row}.created_event_id"]
    ),
)


@processor("conversation.created", "conversation.updated", name="conversations", batch=True)
def keep_conversations(events: Sequence[Event], db: Connection) -> None:
    """Keep a row for each conversation, whichever of its events comes first."""
    conversations = Entities()
    unread = fields.Unreadable()
    for event in feeds.of_model(events, feeds.SHOP):
        conversation_id = fields.entity_id(event.data, "conversation_id")
        if event.type == "conversation.created":
            said = fields.said(event.data, _OF_CREATION, unread)
            said["created_event_id"] = event.event_id
            moment, tie = said.get("created_at"), "0"
        else:
            said = fields.said(event.data, _OF_UPDATE, unread)
            said["updated_event_id"] = event.event_id
            moment, tie = said.get("updated_at"), "1"
        conversations.offer(conversation_id, event, said, moment=moment, tie=tie)
    _merge(db, conversations)
    unreadable.note(db, "conversations", unread)
