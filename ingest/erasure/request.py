"""What an operator asks for: who is to be erased, checked and in one form."""

from collections.abc import Sequence

from ingest.erasure.person import ANY_SCOPE, Person, is_phone
from ingest.errors import IngestError
from ingest.phones import normal_phone

Names = tuple[tuple[str, str], ...]
"""Kinds (`phone`, `contact`, `conversation`) and values, in one form."""
REASON_NAMES = "reason_names"
"""The slug of a reason that names the person."""
_LONGEST_ID = 200


class BadPerson(IngestError):
    """What was given names no person, or more than one."""


def parse(phones: Sequence[str], contacts: Sequence[str], conversations: Sequence[str]) -> Names:
    """Return who is meant.

    Raises:
        BadPerson: nothing is given, or something is no phone number or no id. The message does not
            repeat it.
    """
    if not (phones or contacts or conversations):
        raise BadPerson(
            "Name the person by a phone number, a contact or a conversation.",
            reason="nobody_named",
        )
    named = [("phone", _phone(phone)) for phone in phones]
    named += [("contact", _id("contact", id_)) for id_ in contacts]
    named += [("conversation", _id("conversation", id_)) for id_ in conversations]
    return tuple(dict.fromkeys(named))


def person(named: Names) -> Person:
    """Return what is known of the person before anything is read."""

    def scoped(kind: str) -> set[str]:
        return {f"{ANY_SCOPE} {value}" for of_kind, value in named if of_kind == kind}

    return Person(
        phones={value for kind, value in named if kind == "phone"},
        contacts=scoped("contact"),
        requested=scoped("conversation"),
        conversations=scoped("conversation"),
    )


def check_is_one(person: Person) -> None:
    """Raise BadPerson if the conversation that was given is that of several people."""
    if len(person.participants) > 1:
        raise BadPerson(
            f"The conversation is of {len(person.participants)} people:"
            " name the one who is meant by a phone number or a contact.",
            reason="several_people",
        )


def check_reason(reason: str | None, person: Person) -> None:
    """Raise BadPerson if the reason, which is kept, names the person."""
    if person.operator_spellings().are_in(reason):
        raise BadPerson(
            "The reason names the person, and it is kept: leave that out.", reason=REASON_NAMES
        )


def _phone(written: str) -> str:
    digits = normal_phone(written)
    if not is_phone(digits):
        raise BadPerson(
            "That is not a phone number: write 7 to 15 digits with the country's code,"
            " such as +966 51 234 5678.",
            reason="bad_phone",
        )
    return digits


def _id(kind: str, written: str) -> str:
    text = written.strip()
    if not text or len(text) > _LONGEST_ID or not text.isprintable():
        raise BadPerson(f"That is not the id of a {kind}.", reason="bad_id")
    return text
