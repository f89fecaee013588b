"""`whatsapp_templates`: where each message template stands."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from ingest.store import schema
from workers.control import Discard
from workers.event import Event
from workers.processors import fields, unreadable, whatsapp
from workers.processors.merge import Entities, Group, Upsert, last_event_place
from workers.processors.whatsapp import Update
from workers.registry import processor

_EVERY: fields.Fields = {
    "name": ("message_template_name", fields.text),
    "language": ("message_template_language", fields.text),
}
_FIELDS: dict[str, fields.Fields] = {
    "message_template_status_update": {
        "status": ("event", fields.text),
        "reason": ("reason", fields.text),
    },
    "message_template_quality_update": {"quality": ("new_quality_score", fields.text)},
    "message_template_components_update": {},
    "template_category_update": {
        "category": ("new_category", fields.text),
        "correct_category": ("correct_category", fields.text),
    },
    "template_correct_category_detection": {
        "category": ("category", fields.text),
        "correct_category": ("correct_category", fields.text),
    },
}
"""By the change's field: what it says beside name and language."""
_COMPONENTS = "message_template_components_update"
_COLUMNS = (
    *("waba_id", *_EVERY, "status", "reason", "quality", "category", "correct_category"),
    "components",
)
_merge = Upsert(
    schema.whatsapp_templates,
    "template_id",
    Group(columns=_COLUMNS, origins=()),
    last_event=last_event_place(),
)


@processor(*_FIELDS, name="whatsapp_templates", batch=True)
def keep_templates(events: Sequence[Event], db: Connection) -> None:
    """Keep a row for each template: per column what was said last."""
    templates = Entities()
    unread = fields.Unreadable()
    for event, update in whatsapp.updates(events):
        template_id = whatsapp.identifier("", update.value.get("message_template_id"))
        if not template_id:
            raise Discard("message_template_id is missing")
        said = _said(event.type, update, unread)
        templates.offer(template_id, event, said, moment=update.sent_at)
    _merge(db, templates)
    unreadable.note(db, "whatsapp_templates", unread)


def _said(field: str, update: Update, unread: fields.Unreadable) -> dict[str, Any]:
    said: dict[str, Any] = update.account | fields.said(update.value, _EVERY, unread)
    said |= fields.said(update.value, _FIELDS[field], unread)
    if field == _COMPONENTS:
        said["components"] = whatsapp.json_text("value", update.value)
    return said
