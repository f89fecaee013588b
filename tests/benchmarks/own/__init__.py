"""Processors of a user's own, as `INGEST_PROCESSORS` plugs them in."""

from typing import Final

KEEP: Final = (
    "INSERT INTO messages (message_id, conversation_id, from_number, to_number, type, body,"
    " timestamp, last_event_id) VALUES (:message_id, :conversation_id, :from, :to, :type, :body,"
    " CAST(:timestamp AS timestamptz), :event_id) ON CONFLICT (message_id) DO UPDATE"
    " SET body = excluded.body, last_event_id = excluded.last_event_id"
)
"""A message's row, one at a time, as a user would write it."""
