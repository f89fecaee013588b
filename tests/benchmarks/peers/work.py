"""The work of a peer: the textbook's, in two statements of one transaction, without the ORM."""

from datetime import datetime
from typing import Any, Final

TAKE: Final = """
UPDATE webhook_events SET status = 'processed', processed_at = clock_timestamp()
WHERE id = $1 AND status <> 'processed'
RETURNING payload
"""
"""Of an event's id; no row when it was processed before."""

KEEP: Final = """
INSERT INTO textbook_messages
    (message_id, conversation_id, from_number, to_number, type, body, timestamp)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (message_id) DO UPDATE SET
    conversation_id = excluded.conversation_id, from_number = excluded.from_number,
    to_number = excluded.to_number, type = excluded.type, body = excluded.body,
    timestamp = excluded.timestamp
"""
"""Of a `message`."""


def message(payload: dict[str, Any]) -> tuple[object, ...]:
    """The columns of the message in an event's payload."""
    data = payload["data"]
    return (
        data["message_id"],
        data["conversation_id"],
        data["from"],
        data["to"],
        data["type"],
        data["body"],
        datetime.fromisoformat(data["timestamp"]),
    )
