"""Who is to be erased: what identifies the person, and what is learned of that from what is stored.

A person is given by phone numbers, contact ids or conversation ids. Whatever names one of those in
a field that its source declares may name further ones: a conversation's creation names its contact
and its number. These links are followed. A conversation in which somebody else takes part too is
shared: of it, only what names the person is theirs.
"""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ingest.erasure.spellings import Spellings
from ingest.phones import normal_phone

ANY_SCOPE = "*"
"""The scope of ids that were given: whatever source uses them."""
_SHORTEST_PHONE, _LONGEST_PHONE = 7, 15
_SHORTEST_TEXT_ID = 6
"""An id of fewer characters may stand in a text by chance."""

Named = Mapping[str, frozenset[str]]
"""What a body or a row names in its fields, by kind: `phone`, `contact`, `conversation`, `order`,
`message`, and `person` for whatever else identifies somebody."""


class Verdict(enum.Enum):
    """What a body or a row has to do with the person."""

    NOTHING = "nothing"
    MENTIONS = "mentions"
    """Its text names the person; it may be somebody else's."""
    OWN = "own"
    """It is about the person, by its fields."""


@dataclass(slots=True, kw_only=True)
class Person:
    """What identifies a person. An id is spelled `SCOPE ID`: sources number theirs alike."""

    phones: set[str] = field(default_factory=set)
    contacts: set[str] = field(default_factory=set)
    requested: set[str] = field(default_factory=set)
    """Conversations that the operator named: all of them is the person's."""
    conversations: set[str] = field(default_factory=set)
    shared: set[str] = field(default_factory=set)
    """Conversations in which somebody else takes part."""
    orders: set[str] = field(default_factory=set)
    messages: set[str] = field(default_factory=set)
    participants: set[str] = field(default_factory=set)
    """The numbers that take part in the given conversations."""

    def to_json(self) -> dict[str, list[str]]:
        """Return it as JSON."""
        return {name: sorted(getattr(self, name)) for name in self.__slots__}

    @classmethod
    def from_json(cls, document: Mapping[str, Iterable[str]]) -> "Person":
        """Return what `to_json` made."""
        return cls(**{name: set(values) for name, values in document.items()})

    @property
    def size(self) -> int:
        """Return how much is known; it grows while something is learned."""
        return sum(len(getattr(self, name)) for name in self.__slots__)

    @property
    def identity_size(self) -> int:
        """Return how much is known of who it is, apart from what is theirs."""
        return self.size - len(self.orders) - len(self.messages)

    def forget_belongings(self) -> None:
        """Forget orders and messages, to find them again by what is known now."""
        self.orders.clear()
        self.messages.clear()

    def spellings(self) -> Spellings:
        """Return what recognises the person in texts."""
        ids = {id_.partition(" ")[2] for id_ in self.contacts}
        unmistakable = {id_ for id_ in ids if len(id_) >= _SHORTEST_TEXT_ID and not id_.isdigit()}
        return Spellings(self.phones, unmistakable)

    def operator_spellings(self) -> Spellings:
        """Return what recognises the person in what operators wrote: searches and reasons."""
        searched = {f"contact:{id_.partition(' ')[2]}" for id_ in self.contacts}
        searched |= {
            f"conversation:{id_.partition(' ')[2]}"
            for id_ in self.requested | (self.conversations - self.shared)
        }
        ids = {id_.partition(" ")[2] for id_ in self.contacts}
        unmistakable = {id_ for id_ in ids if len(id_) >= _SHORTEST_TEXT_ID and not id_.isdigit()}
        return Spellings(self.phones, searched | unmistakable)

    def weigh(self, scope: str, named: Named) -> Verdict:
        """Return whether something is the person's, by its fields, and learn from it.

        Args:
            scope: whose ids it names: those of a read model or of a source.
            named: what its fields name.
        """
        phones = {phone for phone in named.get("phone", ()) if is_phone(phone)}
        contacts = _scoped(scope, named.get("contact", ()))
        conversations = _scoped(scope, named.get("conversation", ()))
        orders = _scoped(scope, named.get("order", ()))
        messages = _scoped(scope, named.get("message", ()))
        is_requested = _meets(conversations, self.requested)
        if is_requested:
            self.participants |= phones
        if is_requested or phones & self.phones or _meets(contacts, self.contacts):
            self.phones |= phones
            self.contacts |= contacts
            self.conversations |= conversations
        elif messages & self.messages:
            pass
        elif phones or contacts:
            self.shared |= conversations & self.conversations
            return Verdict.NOTHING
        elif not (conversations & (self.conversations - self.shared) or orders & self.orders):
            return self._by_other_fields(scope, named)
        self.orders |= orders
        self.messages |= messages
        return Verdict.OWN

    def _by_other_fields(self, scope: str, named: Named) -> Verdict:
        others = named.get("person", frozenset())
        is_named = _meets(_scoped(scope, others), self.contacts) or any(
            normal_phone(value) in self.phones for value in others
        )
        return Verdict.OWN if is_named else Verdict.NOTHING


def is_phone(digits: str) -> bool:
    """Return whether a text in its normal form can be a phone number."""
    is_number = digits.isascii() and digits.isdigit()
    return is_number and _SHORTEST_PHONE <= len(digits) <= _LONGEST_PHONE


def identifiers(kind: str, value: Any) -> Iterable[str]:
    """Yield what a field's value names: nothing, or one identifier."""
    if value is None or isinstance(value, bool | dict | list) or value == "":
        return
    text = str(value)
    yield normal_phone(text) if kind == "phone" else text


def _scoped(scope: str, ids: Iterable[str]) -> set[str]:
    return {f"{scope} {id_}" for id_ in ids}


def _meets(ids: set[str], known: set[str]) -> bool:
    """Return whether one of `ids` is known, in its scope or in any."""
    return any(id_ in known or f"{ANY_SCOPE} {id_.partition(' ')[2]}" in known for id_ in ids)
