"""What an event says in a list: of each sender, to viewers, in any script, of any body."""

import json
import string
from collections.abc import Mapping
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from ingest.console.ui import masking
from ingest.console.ui.formats import title_html
from ingest.sources import registry
from ingest.sources.base import Envelope, FieldPath, Source
from ingest.sources.beginnings import completed, title_of
from ingest.sources.described import shipped
from ingest.sources.titles import (
    LIMIT,
    Title,
    amount,
    by_type,
    cents,
    person,
    phone,
    private,
    shown,
    title,
    verb,
    words,
)
from tests.plugin.ledger import Ledger
from tests.support.sources import described

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
SOURCES: Mapping[str, Source] = {
    **{slug: source(source.settings(secrets=())) for slug, source in registry.classes().items()},
    **{name: described(name) for name in shipped.names()},
    "ledger": Ledger(Ledger.settings(secrets=())),
}
SAMPLES = [(slug, name) for slug, source in SOURCES.items() for name in source.samples.types]


def of(slug: str, event_type: str, body: Any) -> str:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return str(title_of(SOURCES, slug, event_type, raw))


@pytest.mark.parametrize(("slug", "event_type"), SAMPLES)
def test_every_sample_of_every_sender_has_a_title(slug: str, event_type: str) -> None:
    body = SOURCES[slug].samples.make(event_type, Random(1), NOW)
    made = title_of(SOURCES, slug, event_type, body)
    assert made is not None
    assert str(made)[0] in string.ascii_uppercase
    assert str(made) != event_type


def test_the_documented_events_of_the_first_sender_say_what_happened() -> None:
    bodies = SOURCES["awalchat"].samples.documented
    assert [of("awalchat", json.loads(body)["event"], body) for body in bodies] == [
        "Message from …000: Hello, I need help",
        "Status delivered",
        "Conversation 123 with …000",
        "Conversation 123 active",
        "Order 789 created, 1,250.00 SAR",
        "Order 789 accepted",
    ]


def update(field: str, value: dict[str, Any]) -> dict[str, Any]:
    changes = [{"field": field, "value": value}]
    return {"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": changes}]}


WROTE = {"id": "wamid.1", "from": "16505551234", "type": "text", "text": {"body": "Hi"}}
FAILED = {
    **{"id": "wamid.1", "status": "failed", "recipient_id": "16505551234"},
    "errors": [{"title": "Message undeliverable"}],
}
PAYMENT = {"status": "COMPLETED", "amount_money": {"amount": 1250, "currency": "USD"}}


@pytest.mark.parametrize(
    ("slug", "event_type", "body", "expected"),
    [
        (
            "whatsapp",
            "messages.text",
            update("messages", {"messages": [WROTE]}),
            "Message from …234: Hi",
        ),
        (
            "whatsapp",
            "statuses.failed",
            update("messages", {"statuses": [FAILED]}),
            "Status failed, to …234: Message undeliverable",
        ),
        (
            "twilio",
            "messaging.received",
            b"MessageSid=SM1&SmsStatus=received&From=%2B966512345678&To=%2B1555&Body=Hello",
            "Message from …678: Hello",
        ),
        (
            "twilio",
            "voice.completed",
            b"CallSid=CA1&CallStatus=completed&From=%2B966512345678&To=%2B15550783881",
            "Call completed, …678 to …881",
        ),
        (
            "zoom",
            "meeting.started",
            {"event": "meeting.started", "payload": {"object": {"id": "12", "topic": "Weekly"}}},
            "Meeting 12 started: Weekly",
        ),
        (
            "github",
            "pull_request.closed",
            {"action": "closed", "number": 7, "pull_request": {"title": "Mend it"}},
            "Pull request 7 closed: Mend it",
        ),
        (
            "github",
            "push",
            {"ref": "refs/heads/main", "repository": {"full_name": "octo/cat"}},
            "Push to refs/heads/main of octo/cat",
        ),
        (
            "gitlab",
            "merge_request",
            {"object_attributes": {"iid": 3, "action": "merge", "title": "Mend it"}},
            "Merge request 3 merge: Mend it",
        ),
        (
            "stripe",
            "invoice.paid",
            {"data": {"object": {"number": "55", "amount_paid": 1250, "currency": "usd"}}},
            "Invoice 55 paid, 12.50 USD",
        ),
        (
            "stripe",
            "charge.refund.updated",
            {"data": {"object": {"id": "re_1", "amount": 500, "currency": "jpy"}}},
            "Charge re_1 updated, 500 JPY",
        ),
        (
            "shopify",
            "orders/create",
            {"name": "#1001", "total_price": "99.90", "currency": "SAR"},
            "Order #1001 created, 99.90 SAR",
        ),
        (
            "slack",
            "message",
            {"event": {"type": "message", "text": "hello", "user": "U1", "channel": "C9"}},
            "Message from U1 in C9: hello",
        ),
        (
            "square",
            "payment.updated",
            {"data": {"id": "p1", "object": {"payment": PAYMENT}}},
            "Payment p1 COMPLETED, 12.50 USD",
        ),
        (
            "telegram",
            "message",
            {"message": {"from": {"first_name": "Nour"}, "text": "hello"}},
            "Message from Nour: hello",
        ),
        (
            "salla",
            "order.status.updated",
            {"data": {"reference_id": 42, "status": {"slug": "shipped"}}},
            "Order 42 shipped",
        ),
        (
            "moyasar",
            "payment_faild",
            {"data": {"id": "p1", "amount": 1000, "currency": "SAR"}},
            "Payment p1 failed",
        ),
        (
            "kapso",
            "whatsapp.message.received",
            {"message": {"from": "966512345678", "text": {"body": "hello"}}},
            "Message from …678: hello",
        ),
        (
            "ycloud",
            "whatsapp.message.updated",
            {"whatsappMessage": {"status": "read", "to": "+966512345678"}},
            "Status read, to …678",
        ),
        ("standard-webhooks", "invoice.paid", {"data": {"id": "in_1"}}, "Invoice paid: in_1"),
        ("ledger", "entry.posted", {"kind": "entry.posted", "number": 5}, "Entry posted, order 5"),
    ],
)
def test_a_sender_says_what_happened(slug: str, event_type: str, body: Any, expected: str) -> None:
    assert of(slug, event_type, body) == expected


def test_a_viewer_sees_no_text_no_name_and_two_digits_of_a_number() -> None:
    wrote = title(
        *("Order ", shown(789), " of ", person("Noura", "966512345678"), ", called by "),
        *(phone("+966 51 234 5987"), ": ", private("where is it?")),
    )
    assert str(wrote) == "Order 789 of Noura, called by …987: where is it?"
    seen = masking.title(wrote, masked=True)
    assert str(seen) == "Order 789 of …78, called by …87: •••"
    assert masking.title(wrote, masked=False) is wrote
    assert str(masking.title(title(shown("sms.966512345678")), masked=True)) == "sms.••••••••••78"


@pytest.mark.parametrize(("slug", "event_type"), SAMPLES)
def test_no_number_of_a_sample_is_left_to_viewers(slug: str, event_type: str) -> None:
    body = SOURCES[slug].samples.make(event_type, Random(2), NOW)
    made = title_of(SOURCES, slug, event_type, body)
    seen = str(masking.title(made, masked=True))
    assert seen == masking.mask_phones(seen)


def test_values_that_may_read_from_right_to_left_are_isolated_and_escaped() -> None:
    made = title("Message from ", phone("966512345678"), ": ", private("مرحبا <b>"))
    assert title_html(made) == ("<span>Message from …678: </span><bdi>مرحبا &lt;b&gt;</bdi>")
    assert title_html(title("Order ", shown(7))) == "<span>Order 7</span>"


def test_a_value_is_one_line_without_marks_that_turn_its_neighbours_round() -> None:
    text = private(
        "\u202eone\n\ttwo\x1b[31m\u2066\x00 \U0001f468\u200d\U0001f469 \u0645\u06cc\u200c\u062e"
    )
    assert text is not None
    assert text.text == "one two�[31m� \U0001f468\u200d\U0001f469 \u0645\u06cc\u200c\u062e"
    half = shown("\ud800x")
    assert half is not None
    assert half.text == "�x"
    long = title("Message: ", private("x" * 10_000), private("y" * 10_000))
    assert len(str(long)) == LIMIT
    assert str(long).endswith("…")
    assert private(" \n\u202e ") is None


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (amount(12, "sar"), "12 SAR"),
        (amount("1250.50", "SAR"), "1,250.50 SAR"),
        (amount("1e9", "SAR"), None),
        (amount(True, "SAR"), None),
        (amount("9" * 5_000, "SAR"), None),
        (cents(1250, "usd"), "12.50 USD"),
        (cents(1250, "JPY"), "1,250 JPY"),
        (cents(1250, "KWD"), "1.250 KWD"),
        (cents("12.5", "USD"), None),
        (cents(-5, "USD"), "-0.05 USD"),
        (cents(5, None), None),
        (phone("SA.13491208655302741918"), "SA.13491208655302741918"),
        (phone(None), None),
    ],
)
def test_money_and_numbers_are_spelled_or_left_out(made: Any, expected: str | None) -> None:
    assert (made and made.text) == expected


def test_a_type_says_in_words_what_was_done() -> None:
    assert words("customer.subscription_updated") == "Customer subscription updated"
    assert words("...") == ""
    assert verb("invoice.payment_failed") == "payment failed"
    assert verb("orders/create") == "create"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["data", "object", "message", "from", "id", "0"]), inner)
    ),
    max_leaves=12,
)


@given(ANYTHING, st.sampled_from(SAMPLES))
def test_no_body_makes_a_title_fail(fields: Any, sample: tuple[str, str]) -> None:
    slug, event_type = sample
    source = SOURCES[slug]
    for body in (json.dumps(fields).encode(), b"", b"\xff", b"&&=%", b"[" * 5_000):
        title_of(SOURCES, slug, event_type, body)
    if isinstance(fields, dict) and slug != "whatsapp":  # whose parse has looked at its fields
        envelope = Envelope(event_type, None, fields, fields)
        assert source.title_event(envelope) is None or str(source.title_event(envelope))


def test_a_plugin_that_fails_costs_its_own_title_only() -> None:
    class Broken(Ledger):
        def title_event(self, envelope: Envelope) -> Title | None:
            raise KeyError(envelope.type)

    broken = Broken(Ledger.settings(secrets=()))
    assert title_of({"ledger": broken}, "ledger", "entry.posted", b'{"kind":"x"}') is None
    assert title_of({}, "gone", "entry.posted", b'{"kind":"x"}') is None


def test_the_beginning_of_a_long_body_has_a_title() -> None:
    event = {"event": "order.created", "data": {"order_id": 789, "note": 'a "quoted, {word' * 999}}
    beginning = json.dumps(event).encode()[:200]
    assert json.loads(completed(beginning)) == {"event": "order.created", "data": {"order_id": 789}}
    made = title_of(SOURCES, "awalchat", "order.created", beginning, is_whole=False)
    assert str(made) == "Order 789 created"
    assert completed(b"MessageSid=SM1&Body=long%4") == b"MessageSid=SM1"
    assert completed(b'{"a":[1,{"b":2},{"c"') == b'{"a":[1,{"b":2},{}]}'
    assert completed(b'{"a":1,"b":"x, {y') == b'{"a":1}'
    assert completed(b'{"a":1,"b,":{"c,":"x,') == b'{"a":1,"b,":{}}'
    assert completed(b'{"' + b"," * 9_000) == b"{}"


@given(st.binary(max_size=60), st.integers(0, 60))
def test_any_beginning_can_be_completed(body: bytes, length: int) -> None:
    completed(b"{" + body[:length])


def test_the_api_spells_a_title_as_a_string() -> None:
    adapter = TypeAdapter(Title)
    assert adapter.dump_json(title("Order ", shown(7)) or Title(())) == b'"Order 7"'
    assert adapter.json_schema(mode="serialization") == {"type": "string"}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{amount:data.total}", "takes two paths"),
        ("{header:x}", "unknown part"),
        ("Order {", "brace without its other"),
        ("", "empty"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(line: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        described("stripe", titles={"*": [line]})


@pytest.mark.parametrize(("name", "seen"), [("C-1042", True), ("sara.ali@example.com", False)])
def test_an_id_that_may_be_an_address_is_hidden_from_viewers(name: str, seen: bool) -> None:
    entities = {"conversation": [FieldPath(path="conversation")]}
    made = by_type("conversation.opened", {"conversation": name}, entities)
    assert made is not None
    assert str(made) == f"Conversation {name} opened"
    assert (name in str(made.masked(str))) is seen
