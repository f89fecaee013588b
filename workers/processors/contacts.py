"""`contacts`: who they are, as far as anybody said.

No payload is documented, so an update may carry the whole contact or only what changed: every field
has its own order. A field that is there and null was cleared; one that is not there says nothing.
"""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from ingest.store import tables
from workers.event import Event
from workers.processors import fields
from workers.processors.fields import Data
from workers.processors.merge import LAST_EVENT, LONG_AGO, Entities, Group, Upsert
from workers.registry import processor

_FIELDS: dict[str, Callable[[Data, str], Any]] = {
    "name": fields.text,
    "phone": fields.text,
    "email": fields.text,
    "contact_group_id": fields.optional_id,
    "is_favorite": fields.flag,
    "avatar": fields.text,
    "created_at": fields.moment,
    "updated_at": fields.moment,
}
_GROUPS = {
    name: Group(columns=(name,), place=f"coalesce({{row}}.versions->>'{name}', '') COLLATE \"C\"")
    for name in _FIELDS
}
_NEWEST_VERSIONS = """(
            SELECT coalesce(jsonb_object_agg(field, version), '{}') FROM (
                SELECT DISTINCT ON (field) field, version
                FROM (SELECT * FROM jsonb_each_text(present.versions)
                      UNION ALL
                      SELECT * FROM jsonb_each_text(excluded.versions)) AS both_ (field, version)
                ORDER BY field, version COLLATE "C" DESC
            ) AS newest
        )"""
_merge = Upsert(
    tables.contacts,
    "contact_id",
    *_GROUPS.values(),
    LAST_EVENT,
    settings={"versions": _NEWEST_VERSIONS},
)


@processor("contact.created", "contact.updated", name="contacts", batch=True)
def keep_contacts(events: Sequence[Event], db: Connection) -> None:
    """Keep a row for each contact, whichever of its events comes first."""
    contacts = Entities()
    for event in events:
        contact_id = fields.entity_id(event.data, "contact_id", "id")
        is_update = event.type == "contact.updated"
        moment = fields.moment(event.data, "updated_at" if is_update else "created_at")
        version = _version(is_update, moment or event.occurred_at, event)
        for name, read in _FIELDS.items():
            if name in event.data:
                value = read(event.data, name)
                contacts.offer(
                    contact_id, _GROUPS[name], (version,), {name: value, _key(name): version}
                )
        contacts.touch(contact_id, moment, event)
    _merge(db, [_with_versions(row) for row in contacts.rows()])


def _version(is_update: bool, moment: datetime | None, event: Event) -> str:
    """A text that sorts as the field's order goes: updates after creations, then time, then id."""
    time = (moment or LONG_AGO).isoformat(timespec="microseconds")
    return f"{int(is_update)}{time} {event.event_id}"


def _with_versions(row: dict[str, Any]) -> dict[str, Any]:
    versions = {name: row[_key(name)] for name in _FIELDS if _key(name) in row}
    return row | {"versions": json.dumps(versions)}


def _key(name: str) -> str:
    return f"version of {name}"
