"""`messages`: what was written, and how far it got."""

from collections.abc import Sequence

from sqlalchemy import Connection

from ingest.store import schema
from workers.event import Event
from workers.processors import fields, unreadable
from workers.processors.merge import Entities, Group, Origin, Upsert, last_event_place
from workers.registry import processor

# A status only moves forward; `failed` wins over sent and loses to delivered and read. A voice
# message is played after it is read; of one that its sender deleted nothing else counts. What we do
# not know is kept as it was sent, and loses to what we know.
RANKS = {"sent": 2, "failed": 3, "delivered": 4, "read": 5, "played": 6, "deleted": 7}
_UNKNOWN = 1
_NO_STATUS = 0

_RECEIVED_FIELDS = {
    "conversation_id": ("conversation_id", fields.whole_number),
    "from_number": ("from", fields.phone),
    "to_number": ("to", fields.phone),
    "type": ("type", fields.text),
    "body": ("body", fields.text),
    "timestamp": ("timestamp", fields.moment),
}
_STATUS_FIELDS = {"status_at": ("timestamp", fields.moment)}
_RANK = (
    "CASE lower({row}.status) "
    + " ".join(f"WHEN '{status}' THEN {rank}" for status, rank in RANKS.items())
    + f" ELSE {_UNKNOWN} END"
)
_RECEIVED = Origin(time="timestamp", event_id="received_event_id")
_STATUS = Origin(time="status_at", event_id="status_event_id", rank=_RANK)
_merge = Upsert(
    schema.messages,
    "message_id",
    Group(columns=(*_RECEIVED_FIELDS, "received_event_id"), origins=(_RECEIVED,)),
    Group(columns=("status", "status_at", "status_event_id"), origins=(_STATUS,)),
    last_event=last_event_place(
        f"CASE WHEN {{row}}.status_event_id IS NULL THEN {_NO_STATUS} ELSE {_RANK} END"
    ),
)


@processor("message.received", "message.status.updated", name="messages", batch=True)
def keep_messages(events: Sequence[Event], db: Connection) -> None:
    """Keep a row for each message, whichever of its events comes first."""
    messages = Entities()
    unread = fields.Unreadable()
    for event in events:
        message_id = fields.key(event.data, "message_id")
        if event.type == "message.received":
            said = fields.said(event.data, _RECEIVED_FIELDS, unread)
            said["received_event_id"] = event.event_id
            messages.offer(message_id, event, said, moment=said.get("timestamp"), rank=_NO_STATUS)
        else:
            status = _status(fields.required_status(event.data, "status"))
            said = fields.said(event.data, _STATUS_FIELDS, unread)
            said |= {"status": status, "status_event_id": event.event_id}
            rank = RANKS.get(status, _UNKNOWN)
            messages.offer(message_id, event, said, moment=said.get("status_at"), rank=rank)
    _merge(db, messages)
    unreadable.note(db, "messages", unread)


def _status(spelled: str) -> str:
    """Return a status that we know, however its sender capitalises it; any other as it is."""
    known = spelled.strip().lower()
    return known if known in RANKS else spelled
