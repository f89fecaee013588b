"""`whatsapp_messages` and `whatsapp_message_statuses`: what was written, and how far it got.

A message that a contact wrote comes as a message, one that the business sent as its statuses. What
its `failed` status said stays with the message, whatever comes after it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from ingest.store import arrays, schema
from ingest.store.sql import statement
from workers.event import Event
from workers.processors import fields, statuses, unreadable, whatsapp
from workers.processors.merge import Entities, Group, Origin, Upsert, last_event_place
from workers.processors.whatsapp import MESSAGE_TYPES, STATUS_TYPES, Update, mapping
from workers.registry import processor

_MESSAGE: fields.Fields = {
    "contact_user_id": ("from_user_id", whatsapp.user_id),
    "contact_phone": ("from", whatsapp.phone),
    "group_id": ("group_id", whatsapp.identifier),
    "type": ("type", fields.text),
    "timestamp": ("timestamp", fields.moment),
}
_MEDIA_TYPES = ("image", "audio", "video", "document", "sticker")
_MEDIA: fields.Fields = {
    "media_id": ("id", whatsapp.identifier),
    "mime_type": ("mime_type", fields.text),
    "sha256": ("sha256", fields.text),
    "filename": ("filename", fields.text),
}
_TEXTS = ("body", "caption", "text", "emoji", "title", "name")
"""Fields of a message's content that may hold its text, the first that is there."""
_CHOICES = ("button_reply", "list_reply", "nfm_reply")
"""Fields of an interactive message's content: what the contact chose or filled in."""
_STATUS: fields.Fields = {"status_at": ("timestamp", fields.moment)}
_RECIPIENT: fields.Fields = {
    "recipient_user_id": ("recipient_user_id", whatsapp.user_id),
    "recipient_phone": ("recipient_id", whatsapp.phone),
}
_CONTACT_OF = {"recipient_user_id": "contact_user_id", "recipient_phone": "contact_phone"}
# To a group, there is a status for each member.
_GROUP: fields.Fields = {"group_id": ("recipient_id", whatsapp.identifier)}
_MEMBER: fields.Fields = {
    "recipient_user_id": ("recipient_user_id", whatsapp.user_id),
    "recipient_phone": ("recipient_participant_id", whatsapp.phone),
}
_ERROR: fields.Fields = {
    "error_code": ("code", fields.whole_number),
    "error_title": ("title", fields.text),
}
_ERROR_DETAILS: fields.Fields = {"error_details": ("details", fields.text)}
_PRICING: fields.Fields = {
    "pricing_category": ("category", fields.text),
    "pricing_model": ("pricing_model", fields.text),
}
_CALLBACK: fields.Fields = {"callback_data": ("biz_opaque_callback_data", fields.text)}
_NUMBER: fields.Fields = {"phone_number_id": ("phone_number_id", whatsapp.identifier)}

_RECEIVED = Origin(time="timestamp", event_id="received_event_id")
_PROGRESS = Origin(time="status_at", event_id="status_event_id", rank=statuses.RANK_SQL)
_FAILURE = Origin(
    time="failed_at", event_id="failed_event_id", rank=f"'{statuses.RANKS['failed']}'"
)
_merge = Upsert(
    schema.whatsapp_messages,
    "message_id",
    Group(
        columns=(
            *("direction", "waba_id", "phone_number_id"),
            *("contact_user_id", "contact_phone", "group_id"),
        ),
        origins=(_PROGRESS, _RECEIVED),
    ),
    Group(
        columns=(
            *("type", "text", *_MEDIA, "reply_to", "content", "timestamp"),
            "received_event_id",
        ),
        origins=(_RECEIVED,),
    ),
    Group(columns=("status", "status_at", "status_event_id"), origins=(_PROGRESS,)),
    Group(columns=(*_ERROR, *_ERROR_DETAILS, "failed_at", "failed_event_id"), origins=(_FAILURE,)),
    last_event=last_event_place(statuses.LAST_EVENT_RANK_SQL),
)
Values = dict[str, Any]


@processor(*MESSAGE_TYPES, *STATUS_TYPES, name="whatsapp_messages", batch=True)
def keep_messages(events: Sequence[Event], db: Connection) -> None:
    """Keep a row for each message and one for each of its statuses."""
    messages = Entities()
    history: list[Values] = []
    unread = fields.Unreadable()
    for event, update in whatsapp.updates(events):
        if event.type in STATUS_TYPES:
            history.append(_add_status(messages, event, update, unread))
        else:
            _add_message(messages, event, update, unread)
    _merge(db, messages)
    if history:
        _keep(db, history)
    unreadable.note(db, "whatsapp_messages", unread)


def _add_message(
    messages: Entities, event: Event, update: Update, unread: fields.Unreadable
) -> None:
    message = update.only("messages")
    said = fields.said(message, _MESSAGE, unread) | _content(message, unread)
    said |= _account(update, unread)
    said |= {"direction": "inbound", "received_event_id": event.event_id}
    moment = said.get("timestamp", update.sent_at)
    messages.offer(fields.key(message, "id"), event, said, moment=moment, rank=statuses.NO_STATUS)


def _add_status(
    messages: Entities, event: Event, update: Update, unread: fields.Unreadable
) -> Values:
    """Offer a status to its message, and return its row in the history."""
    told = update.only("statuses")
    message_id = fields.key(told, "id")
    status = statuses.known(fields.required_status(told, "status"))
    is_to_group = told.get("recipient_type") == "group"
    recipient = fields.said(told, _MEMBER if is_to_group else _RECIPIENT, unread)
    error = _error(told, unread) if status == "failed" else {}
    said = fields.said(told, _STATUS, unread) | error | _account(update, unread)
    said |= {"direction": "outbound", "status": status, "status_event_id": event.event_id}
    if is_to_group:
        said |= fields.said(told, _GROUP, unread)
    else:
        said |= {_CONTACT_OF[column]: value for column, value in recipient.items()}
    at = said.get("status_at")
    if status == "failed":
        said |= {"failed_event_id": event.event_id} | ({"failed_at": at} if at else {})
    moment = at or update.sent_at
    messages.offer(message_id, event, said, moment=moment, rank=statuses.rank(status))
    return (
        {"message_id": message_id, "event_id": event.event_id, "status": status, "at": at}
        | recipient
        | error
        | fields.said(mapping(told.get("pricing")), _PRICING, unread)
        | fields.said(told, _CALLBACK, unread)
    )


def _account(update: Update, unread: fields.Unreadable) -> Values:
    metadata = mapping(update.value.get("metadata"))
    return update.account | fields.said(metadata, _NUMBER, unread)


def _error(told: Mapping[str, Any], unread: fields.Unreadable) -> Values:
    errors = told.get("errors")
    error = mapping(errors[0]) if isinstance(errors, list) and errors else {}
    details = mapping(error.get("error_data"))
    return fields.said(error, _ERROR, unread) | fields.said(details, _ERROR_DETAILS, unread)


def _content(message: Mapping[str, Any], unread: fields.Unreadable) -> Values:
    """Return what a message says, by its type."""
    name = message.get("type")
    content = message.get(name) if isinstance(name, str) else None
    if content is None and message.get("errors"):  # what is unsupported says only why
        content = {"errors": message["errors"]}
    of_content = mapping(content)
    said: Values = {
        "content": whatsapp.json_text("content", content),
        "text": _text(of_content),
        "reply_to": _reply_to(message, of_content),
    }
    if name in _MEDIA_TYPES:
        said |= fields.said(of_content, _MEDIA, unread)
    return {column: value for column, value in said.items() if value is not None}


def _text(content: Mapping[str, Any]) -> str | None:
    """Return what a person reads: of an interactive message, what was chosen or filled in."""
    objects = (*(mapping(content.get(name)) for name in _CHOICES), content)
    texts = (told.get(name) for told in objects for name in _TEXTS)
    return next((fields.text("text", value) for value in texts if isinstance(value, str)), None)


def _reply_to(message: Mapping[str, Any], content: Mapping[str, Any]) -> str | None:
    """Return the message that one answers, or that a reaction is about."""
    for named in (mapping(message.get("context")).get("id"), content.get("message_id")):
        if named is not None:
            return whatsapp.identifier("reply_to", named)
    return None


def _keep(db: Connection, history: Sequence[Values]) -> None:
    kept = sorted(history, key=lambda row: (row["message_id"], row["event_id"]))
    db.execute(
        _KEEP, {name: arrays.literal(row.get(name) for row in kept) for name in _HISTORY_COLUMNS}
    )


_HISTORY_COLUMNS = {
    "message_id": "text",
    "event_id": "text",
    "status": "text",
    "at": "timestamptz",
    "recipient_user_id": "text",
    "recipient_phone": "text",
    "error_code": "bigint",
    "error_title": "text",
    "error_details": "text",
    "pricing_category": "text",
    "pricing_model": "text",
    "callback_data": "text",
}
_KEEP = statement(
    f"""
    INSERT INTO ingest.whatsapp_message_statuses ({", ".join(_HISTORY_COLUMNS)})
    SELECT * FROM unnest({
        ", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in _HISTORY_COLUMNS.items())
    })
    ON CONFLICT DO NOTHING
    """
)
