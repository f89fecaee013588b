"""Who is erased: what is learned of a person, and what another with the same number keeps."""

import json

import pytest

from ingest.erasure import bodies, request
from ingest.erasure.person import Person, Verdict, numbers_in
from tests.support.meta import body_of, change, text, whatsapp

OLD, OTHER, NEXT = "966511111111", "966522222222", "966533333333"
FIRST, SECOND = "SA.aaaaaaaa", "SA.bbbbbbbb"
MODEL = "whatsapp"


def ordered(*contacts: str, phone: str | None = None, conversation: str | None = None) -> Person:
    phones = [] if phone is None else [phone]
    conversations = [] if conversation is None else [conversation]
    return request.person(request.parse(phones, contacts, conversations))


def named(phone: str = "", contact: str = "", **more: str) -> dict[str, frozenset[str]]:
    """What a body or a row names, by kind; several values are separated by spaces."""
    kinds = {"phone": phone, "contact": contact} | more
    return {kind: frozenset(values.split()) for kind, values in kinds.items()}


def test_a_number_that_was_learned_leads_to_no_other_user_id() -> None:
    person = ordered(FIRST)
    assert person.weigh(MODEL, named(OLD, FIRST)) is Verdict.OWN
    assert person.weigh(MODEL, named(OLD, SECOND, message="wamid.1")) is Verdict.ANOTHERS
    assert person.weigh(MODEL, named(OTHER, SECOND)) is Verdict.NOTHING
    assert person.phones == {OLD}
    assert person.contacts == {f"* {FIRST}", f"{MODEL} {FIRST}"}
    assert not person.messages


def test_what_names_the_number_alone_is_the_persons() -> None:
    person = ordered(FIRST)
    person.weigh(MODEL, named(OLD, FIRST))
    assert person.weigh(MODEL, named(OLD, message="wamid.1")) is Verdict.OWN
    assert person.weigh("shop", named(OLD, "5", conversation="7")) is Verdict.OWN
    assert person.weigh("shop", named(conversation="7")) is Verdict.OWN
    # A message of which one status names nobody is no reason to take another's statuses of it.
    assert person.weigh(MODEL, named(OLD, SECOND, message="wamid.1")) is Verdict.ANOTHERS


def test_a_number_that_was_given_is_followed_and_what_is_learned_of_it_is_not() -> None:
    person = ordered(phone=OLD)
    assert person.weigh(MODEL, named(OLD, FIRST)) is Verdict.OWN
    assert person.weigh(MODEL, named(OLD, SECOND)) is Verdict.OWN
    assert person.weigh(MODEL, named(OTHER, SECOND)) is Verdict.OWN
    assert person.weigh(MODEL, named(OTHER, "SA.cccccccc")) is Verdict.ANOTHERS


def test_the_number_of_a_contact_or_a_conversation_that_was_given_counts_as_given() -> None:
    for person in (ordered("5"), ordered(conversation="7")):
        person.weigh("shop", named(OLD, "5", conversation="7"))
        assert person.weigh(MODEL, named(OLD, FIRST)) is Verdict.OWN
    person = ordered(FIRST, "5")
    person.weigh(MODEL, named(OLD, FIRST))
    assert person.weigh(MODEL, named(OLD, SECOND)) is Verdict.ANOTHERS
    size = person.identity_size
    person.weigh("shop", named(OLD, "5"))
    assert person.identity_size > size
    assert person.weigh(MODEL, named(OLD, SECOND)) is Verdict.OWN


def test_rows_of_the_next_owner_are_weighed_the_same_way() -> None:
    person = ordered(FIRST)
    person.weigh(MODEL, named(OLD, FIRST))
    assert person.weigh(MODEL, named(OLD, SECOND)) is Verdict.ANOTHERS
    of_the_number = named(OLD, f"{OLD} {SECOND}")
    assert person.weigh(MODEL, of_the_number) is Verdict.MENTIONS
    assert person.weigh(MODEL, named(OLD, f"{OLD} {FIRST}")) is Verdict.OWN
    assert person.weigh(MODEL, of_the_number) is Verdict.MENTIONS


def test_a_change_that_was_told_joins_user_ids_and_numbers() -> None:
    person = ordered(FIRST)
    person.weigh(MODEL, named(OLD, FIRST))
    assert person.weigh(MODEL, named(contact=f"{FIRST} {SECOND}")) is Verdict.OWN
    assert person.weigh(MODEL, named(OTHER, SECOND)) is Verdict.OWN
    person = ordered(phone=OLD)
    assert person.weigh(MODEL, named(OLD, f"{OLD} {NEXT}")) is Verdict.OWN
    assert person.weigh(MODEL, named(NEXT, f"{NEXT} {FIRST}")) is Verdict.OWN
    assert person.weigh(MODEL, named(NEXT, FIRST)) is Verdict.OWN


@pytest.mark.parametrize(
    "told",
    [
        change(
            "user_id_update", user_id_update=[{"user_id": {"previous": FIRST, "current": SECOND}}]
        ),
        change(
            messages=[
                text(1, type="system", system={"user_id": SECOND}, from_user_id=FIRST),
            ]
        ),
    ],
)
def test_both_ways_to_tell_a_change_are_read(told: object) -> None:
    source = whatsapp()
    body = body_of(told)
    found = bodies.named_in(source, source.parse(body).type, body)
    assert found["contact"] == {FIRST, SECOND}


def test_a_name_that_resembles_a_user_id_is_none() -> None:
    person = ordered(FIRST)
    person.weigh(MODEL, named(OLD, FIRST))
    for other in ("DR.Mohammed", "DR.x", "SA.ENT.12345678"):
        assert person.weigh(MODEL, named(OLD, person=other)) is Verdict.OWN, other
    found = named(person=f"{OLD} SA.13491208655302741918")
    assert person.weigh("twilio", found) is Verdict.ANOTHERS
    assert numbers_in(found) == {OLD}


def test_what_is_known_is_stored_in_the_words_of_the_release_before() -> None:
    person = ordered(FIRST, phone=OTHER, conversation="7")
    person.weigh(MODEL, named(OLD, FIRST))
    document = json.loads(json.dumps(person.to_json()))
    assert document.keys() == {
        *("phones", "contacts", "requested", "conversations", "shared", "orders", "messages"),
        "participants",
    }
    assert Person.from_json(document) == person
    assert person.learned == {OLD}
    before = document | {"requested": ["* 7"]}
    assert Person.from_json(before).learned == set()
