"""`messages`: what was written, and how far it got."""

from collections.abc import Sequence

from sqlalchemy import Connection

from ingest.store import schema
from workers.event import Event
from workers.processors import feeds, fields, statuses, unreadable
from workers.processors.merge import Entities, Group, Origin, Upsert, last_event_place
from workers.registry import processor

_RECEIVED_FIELDS = {
    "conversation_id": ("conversation_id", fields.whole_number),
    "from_number": ("from", fields.phone),
    "to_number": ("to", fields.phone),
    "type": ("type", fields.text),
    "body": ("body", fields.text),
    "timestamp": ("timestamp", fields.moment),
}
_STATUS_FIELDS = {"status_at": ("timestamp", fields.moment)}
_RECEIVED = Origin(time="timestamp", event_id="received_event_id")
_STATUS = Origin(time="status_at", event_id="status_event_id", rank=statuses.RANK_SQL)
_merge = Upsert(
    schema.messages,
    "message_id",
    Group(columns=(*_RECEIVED_FIELDS, "received_event_id"), origins=(_RECEIVED,)),
    Group(columns=("status", "status_at", "status_event_id"), origins=(_STATUS,)),
    last_event=last_event_place(statuses.LAST_EVENT_RANK_SQL),
)


@processor("message.received", "message.status.updated", name="messages", batch=True)
def keep_messages(events: Sequence[Event], db: Connection) -> None:
    """Keep a row for each message, whichever of its events comes first."""
    messages = Entities()
    unread = fields.Unreadable()
    for event in feeds.of_model(events, feeds.SHOP):
        message_id = fields.key(event.data, "message_id")
        if event.type == "message.received":
            said = fields.said(event.data, _RECEIVED_FIELDS, unread)
            said["received_event_id"] = event.event_id
            moment, rank = said.get("timestamp"), statuses.NO_STATUS
        else:
            status = statuses.known(fields.required_status(event.data, "status"))
            said = fields.said(event.data, _STATUS_FIELDS, unread)
            said |= {"status": status, "status_event_id": event.event_id}
            moment, rank = said.get("status_at"), statuses.rank(status)
        messages.offer(message_id, event, said, moment=moment, rank=rank)
    _merge(db, messages)
    unreadable.note(db, "messages", unread)
