"""`contacts`: who they are, as far as anybody said.

No payload is documented, so an update may carry the whole contact or only what changed: every field
has its own order. A field that is there and null was cleared; one that is not there says nothing.
"""

from collections.abc import Sequence

from sqlalchemy import Connection

from ingest.store import schema
from workers.event import Event
from workers.processors import feeds, fields, unreadable
from workers.processors.merge import Entities, Group, Upsert, last_event_place
from workers.registry import processor

_FIELDS = {
    "name": ("name", fields.text),
    "phone": ("phone", fields.phone),
    "email": ("email", fields.text),
    "contact_group_id": ("contact_group_id", fields.whole_number),
    "is_favorite": ("is_favorite", fields.flag),
    "avatar": ("avatar", fields.text),
    "created_at": ("created_at", fields.moment),
    "updated_at": ("updated_at", fields.moment),
}
_IS_UPDATE = "starts_with({row}.last_event_id, 'contact.updated:')"
"""Event ids begin with their type, whatever the source."""
_merge = Upsert(
    schema.contacts,
    "contact_id",
    Group(columns=tuple(_FIELDS), origins=()),
    last_event=last_event_place(_IS_UPDATE),
)


@processor("contact.created", "contact.updated", name="contacts", batch=True)
def keep_contacts(events: Sequence[Event], db: Connection) -> None:
    """Keep a row for each contact, whichever of its events comes first. Updates come after
    creations, each by their time."""
    contacts = Entities()
    unread = fields.Unreadable()
    for event in feeds.of_model(events, feeds.SHOP):
        contact_id = fields.entity_id(event.data, "contact_id", "id")
        is_update = event.type == "contact.updated"
        said = fields.said(event.data, _FIELDS, unread, null_clears=True)
        moment = said.get("updated_at" if is_update else "created_at")
        contacts.offer(contact_id, event, said, moment=moment, rank=int(is_update))
    _merge(db, contacts)
    unreadable.note(db, "contacts", unread)
