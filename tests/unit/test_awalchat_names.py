"""Two deliveries of one occurrence meet in one event; two occurrences are never merged."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import InvalidEnvelope
from ingest.sources.base import EventIdentity
from tests.support.sources import awalchat

source = awalchat()


def name(event_type: str, data: dict[str, Any], **fields: Any) -> EventIdentity:
    body = {"event": event_type, "timestamp": "2024-01-20T10:30:00Z", "data": data} | fields
    return source.identify(source.parse(json.dumps(body).encode()))


def event_id(event_type: str, data: dict[str, Any], **fields: Any) -> str:
    return name(event_type, data, **fields).event_id


def test_a_message_is_named_by_its_message_id() -> None:
    assert event_id("message.received", {"message_id": "wamid.A", "body": "one"}) == event_id(
        "message.received", {"message_id": "wamid.A", "body": "two"}
    )


def test_a_status_is_named_by_message_and_status() -> None:
    def of(status: str) -> str:
        return event_id("message.status.updated", {"message_id": "wamid.A", "status": status})

    assert len({of("sent"), of("delivered"), of("read")}) == 3
    assert of("read") == of("read")


@pytest.mark.parametrize(
    ("event_type", "field"),
    [
        ("conversation.created", "conversation_id"),
        ("order.created", "order_id"),
        ("contact.created", "contact_id"),
        ("contact.created", "id"),
    ],
)
def test_a_creation_is_named_by_its_entity(event_type: str, field: str) -> None:
    assert event_id(event_type, {field: 7, "x": 1}) == event_id(event_type, {field: 7, "x": 2})
    assert event_id(event_type, {field: 7}) != event_id(event_type, {field: 8})


def test_an_id_that_a_later_version_of_the_sender_adds_is_taken() -> None:
    assert event_id("order.created", {"order_id": 1}, id="evt_1") != event_id(
        "order.created", {"order_id": 1}, id="evt_2"
    )
    assert event_id("order.created", {"order_id": 1}, event_id="evt_1") == event_id(
        "order.created", {"order_id": 2}, id="evt_1"
    )


@pytest.mark.parametrize("useless", ["", None, True, 1.5, {}, []])
def test_an_id_that_is_no_text_and_no_integer_is_passed_over(useless: object) -> None:
    assert event_id("order.created", {"order_id": 1}, id=useless) == event_id(
        "order.created", {"order_id": 1}
    )


def test_an_update_is_named_by_its_content() -> None:
    first = {"order_id": 1, "new_status": "shipped", "updated_at": "2024-01-20T11:30:00Z"}
    assert event_id("order.status.updated", first) == event_id(
        "order.status.updated", dict(reversed(first.items()))
    )


def test_there_and_back_within_a_second_are_two_occurrences() -> None:
    stamp = "2024-01-20T11:30:00Z"
    there = {"order_id": 1, "old_status": "a", "new_status": "b", "updated_at": stamp}
    back = {"order_id": 1, "old_status": "b", "new_status": "a", "updated_at": stamp}
    assert event_id("order.status.updated", there) != event_id("order.status.updated", back)


def test_a_retry_stamped_anew_is_the_same_event_without_a_conflict() -> None:
    data = {"conversation_id": 1, "status": "active", "updated_at": "2024-01-20T11:30:00Z"}
    assert name("conversation.updated", data, timestamp="2024-01-20T11:30:00Z") == name(
        "conversation.updated", data, timestamp="2024-01-20T11:31:00Z"
    )


def test_data_without_a_time_of_its_own_is_told_apart_by_the_envelopes() -> None:
    data = {"ticket_id": 5}
    assert event_id("ticket.escalated", data, timestamp="2024-01-20T11:30:00Z") != event_id(
        "ticket.escalated", data, timestamp="2024-01-20T11:31:00Z"
    )


def test_missing_fields_fall_back_to_the_content() -> None:
    assert event_id("message.received", {"body": "one"}) != event_id(
        "message.received", {"body": "two"}
    )
    assert event_id("message.status.updated", {"message_id": "wamid.A"}) != event_id(
        "message.status.updated", {"message_id": "wamid.B"}
    )


def test_another_content_under_the_same_id_has_another_fingerprint() -> None:
    one = name("message.received", {"message_id": "wamid.A", "body": "one"})
    two = name("message.received", {"message_id": "wamid.A", "body": "two"})
    assert one.event_id == two.event_id
    assert one.fingerprint != two.fingerprint


def test_white_space_escapes_and_order_are_not_content() -> None:
    plain = '{"event":"message.received","data":{"message_id":"A","body":"مرحبا"}}'.encode()
    escaped = (
        b'{ "data": {"body": "\\u0645\\u0631\\u062d\\u0628\\u0627", "message_id": "A"},\n'
        b' "event": "message.received" }'
    )
    assert source.identify(source.parse(plain)) == source.identify(source.parse(escaped))


texts = st.text(st.characters(exclude_categories=()), min_size=1, max_size=300)


@given(texts, texts, texts, texts)
def test_different_parts_never_make_the_same_id(a: str, b: str, c: str, d: str) -> None:
    one = event_id("message.status.updated", {"message_id": a, "status": b})
    other = event_id("message.status.updated", {"message_id": c, "status": d})
    assert (one == other) == ((a, b) == (c, d))


@given(texts)
def test_the_rules_never_make_the_same_id_of_different_things(value: str) -> None:
    by_envelope = event_id("order.created", {"order_id": value}, id=value)
    by_entity = event_id("order.created", {"order_id": value})
    assert by_envelope != by_entity


@given(texts, texts)
def test_an_id_begins_with_its_type_fits_an_index_and_can_be_stored(
    event_type: str, value: str
) -> None:
    found = name(event_type, {"a": value}, id=value)
    assert len(found.event_id.encode()) < 2_000
    assert len(found.type) <= 200
    for text in (found.event_id, found.type):
        assert "\x00" not in text
        text.encode()


def test_ordinary_ids_can_be_read() -> None:
    assert event_id("order.created", {"order_id": 789}) == "order.created:789"
    assert (
        event_id("message.status.updated", {"message_id": "wamid.HB==", "status": "read"})
        == "message.status.updated:wamid.HB==:read"
    )


def test_a_megabyte_of_type_is_no_trouble() -> None:
    found = name("x" * 1_000_000, {})
    other = name("x" * 1_000_001, {})
    assert found.event_id != other.event_id
    assert len(found.type) == 200


@pytest.mark.parametrize("event_type", ["contact.updated", "product.updated"])
def test_an_update_that_says_only_when_its_entity_was_made_is_told_apart_by_its_envelope(
    event_type: str,
) -> None:
    """A → B → A: the third update is no repeat of the first."""
    data = {"id": 1, "name": "A", "created_at": "2024-01-20T10:00:00Z"}
    first = event_id(event_type, data, timestamp="2024-02-01T00:00:00Z")
    third = event_id(event_type, data, timestamp="2024-02-03T00:00:00Z")
    assert first != third


def test_a_mark_at_the_beginning_changes_nothing() -> None:
    plain = b'{"event":"order.created","data":{"order_id":1}}'
    marked = b"\xef\xbb\xbf" + plain
    assert source.parse(marked) == source.parse(plain)
    assert source.identify(source.parse(marked)) == source.identify(source.parse(plain))


@pytest.mark.parametrize("event_type", ["order.created", "contact.updated", "ticket.escalated"])
def test_phps_spelling_of_no_data_is_no_data(event_type: str) -> None:
    """PHP spells an object without fields `[]`."""

    def spelled(data: bytes) -> EventIdentity:
        stamp = b'"timestamp":"2024-01-20T10:30:00Z"'
        event = f'"event":"{event_type}"'.encode()
        return source.identify(source.parse(b'{%s,%s,"data":%s}' % (event, stamp, data)))

    assert spelled(b"[]") == spelled(b"{}")


@pytest.mark.parametrize("data", ["[1]", "[[]]", "null", '""', "0", "false"])
def test_other_data_than_an_object_is_refused(data: str) -> None:
    with pytest.raises(InvalidEnvelope):
        source.parse(f'{{"event":"order.created","data":{data}}}'.encode())


def test_ids_and_fingerprints_of_what_is_stored_already_stay_as_they_are() -> None:
    """Stored events are compared with them for ever."""
    found = name("order.created", {"order_id": 790, "total": 1250.5, "name": "نورة"})
    assert found.event_id == "order.created:790"
    assert found.fingerprint.hex() == (
        "833fd97d95a870227030fd7f22a0a9a025cc20902fe7bf02ad9616a718b0228b"
    )
    update = {"order_id": 1, "new_status": "shipped", "updated_at": "2024-01-20T11:30:00Z"}
    assert event_id("order.status.updated", update) == (
        "order.status.updated:#ef6f897a5d481cfa428afe272641bb57bb574653fd6b301eea05e262fc4f0dac"
    )
