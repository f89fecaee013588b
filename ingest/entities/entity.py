"""An entity: a kind of thing that events concern, and what its sender calls it."""

from dataclasses import dataclass

from ingest import phones
from ingest.errors import IngestError
from ingest.store.search.related import KINDS, NUMBERED, is_bigint

LONGEST = 500
"""Characters of what an entity is called."""
_NOUNS = {
    "conversation": "Conversation",
    "phone": "Phone number",
    "order": "Order",
    "message": "Message",
    "contact": "Contact",
}


class BadEntity(IngestError):
    """What was given names no entity."""


@dataclass(frozen=True, slots=True, order=True)
class Entity:
    """One order, conversation, contact, message or phone number. Ids count within their sender, so
    two senders may mean two things by it."""

    kind: str
    """One of `KINDS`."""
    value: str
    """What it is called, in the form that searches compare: digits of a phone number."""

    @property
    def title(self) -> str:
        """Return how a page names it."""
        return f"{_NOUNS[self.kind]} {self.value}"

    @property
    def noun(self) -> str:
        """Return the word for its kind."""
        return _NOUNS[self.kind]

    @property
    def may_name_person(self) -> bool:
        """Return whether what it is called may be a number, a name or an address of a person: a
        sender may use any text as an id, and WhatsApp's message ids hold a number."""
        return (
            self.kind == "phone"
            or not is_bigint(self.value)
            or phones.IN_TEXT.search(self.value) is not None
        )


def entity(kind: str, value: str) -> Entity:
    """Return the entity of a kind that a text names.

    Raises:
        BadEntity: there is no such kind, or the text cannot be what one is called.
    """
    if kind not in KINDS:
        raise BadEntity(f"{kind} is none of {', '.join(KINDS)}.", reason="bad_kind")
    text = value.strip()
    if not text or len(text) > LONGEST or not text.isprintable():
        raise BadEntity(f"{_NOUNS[kind]}: that cannot be the id of one.", reason="bad_id")
    if kind == "phone":
        text = phones.normal_phone(text)
    elif kind in NUMBERED and is_bigint(text):
        text = str(int(text))
    return Entity(kind, text)
