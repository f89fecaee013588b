"""Who is to be erased: what identifies the person, and what is learned of that from what is stored.

A person is given by phone numbers, contact ids or conversation ids. Whatever names one of those in
a field that its source declares may name further ones: a conversation's creation names its contact
and its number. These links are followed. A conversation in which somebody else takes part too is
shared: of it, only what names the person is theirs.

Phone numbers are given to others. So a number that was merely learned leads to no further user id
of WhatsApp: what names another one is somebody else's, who has that number now or had it before.
"""

import enum
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ingest.erasure.spellings import Spellings
from ingest.phones import normal_phone

ANY_SCOPE = "*"
"""The scope of ids that were given: whatever source uses them."""
_LEARNED = "+"
"""The scope of learned numbers in JSON, where they stand among what was requested. The release
before takes no further keys, and this is nothing to it."""
_USER_ID = re.compile(r"[A-Z]{2}\.(?!ENT\.)\S+")
"""A user id of WhatsApp (`SA.13491208655302741918`); `SA.ENT.…` is that of a group of accounts."""
_USER_ID_NOT_NAME = re.compile(r"[A-Z]{2}\.(?!ENT\.)(?=[A-Za-z]*[0-9])[A-Za-z0-9]{8,128}")
"""The same where a name may stand as well: `DR.Sara` is none."""
_SHORTEST_PHONE, _LONGEST_PHONE = 7, 15
_SHORTEST_TEXT_ID = 6
"""An id of fewer characters may stand in a text by chance."""

Named = Mapping[str, frozenset[str]]
"""What a body or a row names in its fields, by kind: `phone`, `contact`, `conversation`, `order`,
`message`, and `person` for whatever else identifies somebody."""


class Verdict(enum.Enum):
    """What a body or a row has to do with the person."""

    NOTHING = "nothing"
    ANOTHERS = "another's"
    """It is somebody else's, who has a number that the person had: there it names the other."""
    MENTIONS = "mentions"
    """Its text names the person; it may be somebody else's."""
    OWN = "own"
    """It is about the person, by its fields."""


@dataclass(slots=True, kw_only=True)
class Person:
    """What identifies a person. An id is spelled `SCOPE ID`: sources number theirs alike."""

    phones: set[str] = field(default_factory=set)
    learned: set[str] = field(default_factory=set)
    """Those of `phones` that are merely learned: another user id of WhatsApp may have them, too."""
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
        document = {name: sorted(getattr(self, name)) for name in self.__slots__}
        document["requested"] += sorted(_scoped(_LEARNED, document.pop("learned")))
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Iterable[str]]) -> "Person":
        """Return what `to_json` made."""
        known = {name: set(values) for name, values in document.items()}
        requested = known.get("requested", set())
        learned = {id_ for id_ in requested if id_.startswith(f"{_LEARNED} ")}
        requested -= learned
        return cls(**known, learned={id_.partition(" ")[2] for id_ in learned})

    @property
    def size(self) -> int:
        """Return how much is known; it grows while something is learned."""
        followed = len(self.phones - self.learned)
        known = (name for name in self.__slots__ if name != "learned")
        return followed + sum(len(getattr(self, name)) for name in known)

    @property
    def identity_size(self) -> int:
        """Return how much is known of who it is, apart from what is theirs."""
        return self.size - len(self.orders) - len(self.messages)

    def forget_belongings(self) -> None:
        """Forget orders and messages, to find them again by what is known now."""
        self.orders.clear()
        self.messages.clear()

    def spellings(self, *, without: Iterable[str] = ()) -> Spellings:
        """Return what recognises the person in texts; `without` some phone numbers."""
        ids = {id_.partition(" ")[2] for id_ in self.contacts}
        unmistakable = {id_ for id_ in ids if len(id_) >= _SHORTEST_TEXT_ID and not id_.isdigit()}
        return Spellings(self.phones.difference(without), unmistakable)

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
        elif self._is_anothers(scope, named):
            # The row of the number itself says what was said of the number alone.
            is_of_number = not phones.isdisjoint(named.get("contact", ()))
            return Verdict.MENTIONS if is_of_number else Verdict.ANOTHERS
        if is_requested or phones & self.phones or _meets(contacts, self.contacts):
            self._learn(scope, named, is_requested=is_requested)
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

    def _is_anothers(self, scope: str, named: Named) -> bool:
        """Return whether something names a user id that is not known, and of the person at most
        numbers that were learned."""
        user_ids = _user_ids(named) if self.learned else set()
        if not user_ids or _meets(_scoped(scope, user_ids), self.contacts):
            return False
        numbers = numbers_in(named) & self.phones
        return bool(numbers) and numbers <= self.learned

    def _learn(self, scope: str, named: Named, *, is_requested: bool) -> None:
        """Learn the numbers and contacts of something that is the person's.

        The numbers of a contact or conversation that was given are followed like given ones. Beside
        a user id, a number is no contact of its own, and may be another's next.
        """
        phones = {phone for phone in named.get("phone", ()) if is_phone(phone)}
        contacts = named.get("contact", frozenset())
        given = {id_ for id_ in self.contacts if id_.startswith(f"{ANY_SCOPE} ")}
        is_given = is_requested or _meets(_scoped(scope, contacts), given)
        if is_given and not _user_ids(named):
            self.learned -= phones
        else:
            self.learned |= phones - self.phones
        self.phones |= phones
        self.contacts |= _scoped(scope, set(filter(_USER_ID.fullmatch, contacts)) or contacts)

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


def numbers_in(named: Named) -> set[str]:
    """Return the phone numbers that something names, in whichever fields."""
    others = map(normal_phone, named.get("person", ()))
    return {digits for digits in (*named.get("phone", ()), *others) if is_phone(digits)}


def _user_ids(named: Named) -> set[str]:
    """Return the user ids of WhatsApp that say whose something is."""
    contacts = set(filter(_USER_ID.fullmatch, named.get("contact", ())))
    return contacts or set(filter(_USER_ID_NOT_NAME.fullmatch, named.get("person", ())))


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
