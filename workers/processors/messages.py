"""`messages`: what was written, and how far it got."""

from collections.abc import Sequence

from sqlalchemy import Connection

from ingest.store import tables
from workers.event import Event
from workers.processors import fields
from workers.processors.merge import LAST_EVENT, Entities, Group, Upsert, place, sql_place
from workers.registry import processor

# A status only moves forward; `failed` wins over sent and loses to delivered and read. One that we
# do not know loses to those we do.
RANKS = {"sent": 1, "failed": 2, "delivered": 3, "read": 4}

_CONTENT = Group(
    columns=(
        "conversation_id",
        "from_number",
        "to_number",
        "type",
        "body",
        "timestamp",
        "received_event_id",
    ),
    place=sql_place("timestamp", "received_event_id"),
)
_RANK = "CASE {row}.status " + " ".join(
    f"WHEN '{status}' THEN {rank}" for status, rank in RANKS.items()
)
_STATUS = Group(
    columns=("status", "status_at", "status_event_id"),
    place=f"{_RANK} ELSE 0 END, {sql_place('status_at', 'status_event_id')}",
)
_merge = Upsert(tables.messages, "message_id", _CONTENT, _STATUS, LAST_EVENT)


@processor("message.received", "message.status.updated", name="messages", batch=True)
def keep_messages(events: Sequence[Event], db: Connection) -> None:
    """Keep a row for each message, whichever of its events comes first."""
    messages = Entities()
    for event in events:
        message_id = fields.key(event.data, "message_id")
        moment = fields.moment(event.data, "timestamp")
        if event.type == "message.received":
            messages.offer(
                message_id,
                _CONTENT,
                place(moment, event),
                {
                    "conversation_id": fields.optional_id(event.data, "conversation_id"),
                    "from_number": fields.text(event.data, "from"),
                    "to_number": fields.text(event.data, "to"),
                    "type": fields.text(event.data, "type"),
                    "body": fields.text(event.data, "body"),
                    "timestamp": moment,
                    "received_event_id": event.event_id,
                },
            )
        else:
            status = fields.required_status(event.data, "status")
            messages.offer(
                message_id,
                _STATUS,
                (RANKS.get(status, 0), *place(moment, event)),
                {"status": status, "status_at": moment, "status_event_id": event.event_id},
            )
        messages.touch(message_id, moment, event)
    _merge(db, messages.rows())
