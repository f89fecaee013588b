"""`whatsapp_contacts`: the persons that a business talks to, by business-scoped user id; by phone
number where no user id is known.

`whatsapp_identities` has a row for each user id and each phone number. Events say of an identity
which one took its place: a phone number's user id, or the id that follows when a user changes the
number. Per identity the newest of these counts. The chain of them ends in the contact, whose row is
made of all its identities' rows. So the contacts depend on the identities only, and those on the
set of events.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection

from ingest.store import schema
from workers.control import Discard
from workers.event import Event
from workers.processors import fields, unreadable, whatsapp, whatsapp_identities
from workers.processors.fields import Data, Fields
from workers.processors.merge import Entities, Group, Upsert, last_event_place
from workers.processors.whatsapp import MESSAGE_TYPES, STATUS_TYPES, Update, mapping
from workers.registry import processor

ID_UPDATE = "user_id_update"
_NEW_IDENTITY = ("user_changed_number", "user_changed_user_id")
"""Types of system messages."""
_SENDER: Fields = {
    "user_id": ("from_user_id", whatsapp.user_id),
    "phone": ("from", whatsapp.phone),
    "parent_user_id": ("from_parent_user_id", whatsapp.user_id),
}
_RECIPIENT: Fields = {
    "user_id": ("recipient_user_id", whatsapp.user_id),
    "phone": ("recipient_id", whatsapp.phone),
    "parent_user_id": ("recipient_parent_user_id", whatsapp.user_id),
}
_MEMBER: Fields = {**_RECIPIENT, "phone": ("recipient_participant_id", whatsapp.phone)}
_CONTACT: Fields = {
    "user_id": ("user_id", whatsapp.user_id),
    "phone": ("wa_id", whatsapp.phone),
    "parent_user_id": ("parent_user_id", whatsapp.user_id),
}
_PROFILE: Fields = {
    "name": ("name", fields.text),
    "username": ("username", fields.text),
}
_PREVIOUS: Fields = {"user_id": ("previous", whatsapp.user_id)}
_CURRENT: Fields = {"user_id": ("current", whatsapp.user_id)}
_CURRENT_PARENT: Fields = {"parent_user_id": ("current", whatsapp.user_id)}
_PHONE: Fields = {"phone": ("wa_id", whatsapp.phone)}
_TIME: Fields = {"at": ("timestamp", fields.moment)}

_merge = Upsert(
    schema.whatsapp_identities,
    "identity",
    Group(columns=("successor", "phone", "name", "username", "parent_user_id"), origins=()),
    last_event=last_event_place(),
)
Person = dict[str, Any]
"""What an event says of a person: a user id or a phone number, or both, and further columns."""


class Identities:
    """What an event says of identities, by identity and column."""

    def __init__(self) -> None:
        self.said: dict[str, dict[str, Any]] = {}

    def see(self, person: Person) -> str | None:
        """Note what is said of a person; return the identity that stands for it, if any does.

        A phone number that comes with a user id belongs to it.
        """
        columns = dict(person)
        user_id, phone = columns.pop("user_id", None), person.get("phone")
        if user_id is None:
            columns.pop("phone", None)  # the identity itself
        elif phone is not None:
            self._of(phone)["successor"] = user_id
        identity: str | None = user_id or phone
        if identity is not None:
            self._of(identity).update(columns)
        return identity

    def replace(self, old: Person, new: Person) -> None:
        """Note that a person has a new identity.

        A new phone number without a user id belongs to the one that is known.
        """
        before = self.see(old)
        if before is not None:
            self._of(before).pop("phone", None)  # which the person has no more
        if "user_id" in old and "user_id" not in new and "phone" in new:
            new = new | {"user_id": old["user_id"]}
        after = self.see(new)
        if before is not None and after is not None and before != after:
            self._of(before)["successor"] = after

    def _of(self, identity: str) -> dict[str, Any]:
        return self.said.setdefault(identity, {})


@processor(*MESSAGE_TYPES, *STATUS_TYPES, ID_UPDATE, name="whatsapp_contacts", batch=True)
def keep_contacts(events: Sequence[Event], db: Connection) -> None:
    """Keep a row for each person, whichever of its events comes first."""
    entities = Entities()
    unread = fields.Unreadable()
    for event, update in whatsapp.updates(events):
        for told, identities in _statements(event, update, unread):
            moment = fields.said(told, _TIME, unread).get("at", update.sent_at)
            for identity, columns in identities.said.items():
                entities.offer(identity, event, columns, moment=moment)
    touched = [identity for identity, _ in entities]
    if touched:
        whatsapp_identities.take_turn(db)
        _merge(db, entities)
        whatsapp_identities.settle(db, touched)
    unreadable.note(db, "whatsapp_contacts", unread)


def _statements(
    event: Event, update: Update, unread: fields.Unreadable
) -> Iterator[tuple[Data, Identities]]:
    """Yield each part of an update that has a time of its own, and what it says of identities."""
    if event.type == ID_UPDATE:
        for told in _id_updates(update):
            yield told, _id_update(told, unread)
    elif event.type in STATUS_TYPES:
        told = update.only("statuses")
        is_to_group = told.get("recipient_type") == "group"
        yield told, _seen(told, _MEMBER if is_to_group else _RECIPIENT, update, unread)
    else:
        told = update.only("messages")
        system = mapping(told.get("system"))
        if system.get("type") in _NEW_IDENTITY:
            yield told, _system_message(told, system, unread)
        else:
            yield told, _seen(told, _SENDER, update, unread)


def _seen(told: Data, names: Fields, update: Update, unread: fields.Unreadable) -> Identities:
    """Return what a message or status says of the person, with the contact beside it."""
    contact = fields.said(update.contact, _CONTACT, unread)
    contact |= fields.said(mapping(update.contact.get("profile")), _PROFILE, unread)
    person = fields.said(told, names, unread)
    identities = Identities()
    if len({contact.get("user_id"), person.get("user_id")} - {None}) < 2:  # else another's
        person = contact | person
    identities.see(person)
    return identities


def _system_message(told: Data, system: Data, unread: fields.Unreadable) -> Identities:
    identities = Identities()
    old = fields.said(told, _SENDER, unread)
    old.pop("parent_user_id", None)
    identities.replace(old, fields.said(system, _CONTACT, unread))
    return identities


def _id_updates(update: Update) -> Sequence[Data]:
    told = update.value.get(ID_UPDATE)
    if not isinstance(told, list) or not told or not all(isinstance(one, dict) for one in told):
        raise Discard(f"{ID_UPDATE} is missing")
    return told


def _id_update(told: Data, unread: fields.Unreadable) -> Identities:
    ids, parents = mapping(told.get("user_id")), mapping(told.get("parent_user_id"))
    new = fields.said(ids, _CURRENT, unread) | fields.said(parents, _CURRENT_PARENT, unread)
    identities = Identities()
    identities.replace(fields.said(ids, _PREVIOUS, unread), new | fields.said(told, _PHONE, unread))
    return identities
