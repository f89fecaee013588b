"""The read model of WhatsApp: its rows depend on the set of events only, and are those of the
documented examples."""

import hashlib
import json
import random
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from tests.support.effort import examples
from tests.support.whatsapp_reference import Model, whatsapp_model
from workers import Discard, Event
from workers.processors.whatsapp import MESSAGE_TYPES, STATUS_TYPES
from workers.processors.whatsapp_accounts import ERRORS, FIELDS, keep_accounts
from workers.processors.whatsapp_contacts import ID_UPDATE, keep_contacts
from workers.processors.whatsapp_identities import Link, ends_of_chains
from workers.processors.whatsapp_messages import keep_messages
from workers.processors.whatsapp_templates import keep_templates

# The values of Meta's documented examples.
WABA = "102290129340398"
NUMBER_ID = "106540352242922"
DISPLAY = "15550783881"
PHONE = "16505551234"
USER = "US.13491208655302741918"
INBOUND = "wamid.HBgLMTY1MDM4Nzk0MzkVAgASGBQzQTRBNjU5OUFFRTAzODEwMTQ0RgA="
OUTBOUND = "wamid.HBgLMTY1MDM4Nzk0MzkVAgASGBQzQUFERjg0NDEzNDdFODU3MUMxMAA="
METADATA = {"display_phone_number": DISPLAY, "phone_number_id": NUMBER_ID}

Keep = Callable[[Sequence[Event], Connection], None]
TEMPLATE_TYPES = (
    "message_template_status_update",
    "message_template_quality_update",
    "message_template_components_update",
    "template_category_update",
)
KEEPERS: tuple[tuple[Keep, tuple[str, ...]], ...] = (
    (keep_messages, (*MESSAGE_TYPES, *STATUS_TYPES)),
    (keep_contacts, (*MESSAGE_TYPES, *STATUS_TYPES, ID_UPDATE)),
    (keep_templates, TEMPLATE_TYPES),
    (keep_accounts, (*FIELDS, ERRORS)),
)


def spell(field: str, value: Any, *, time: int | None = None, waba: str = WABA) -> bytes:
    """A body of Meta's with one update."""
    entry: dict[str, Any] = {"id": waba, "changes": [{"field": field, "value": value}]}
    if time is not None:
        entry["time"] = time
    return json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()


def update(kind: str, item: Any, *, contact: Any = None, time: int | None = None) -> bytes:
    """A body with one message, status or error."""
    value = {"messaging_product": "whatsapp", "metadata": METADATA, kind: [item]}
    return spell("messages", value | ({"contacts": [contact]} if contact else {}), time=time)


def message(**fields: Any) -> bytes:
    return update("messages", {"id": INBOUND, "timestamp": "1749416383"} | fields)


def status(name: str, at: int = 1750030073, **fields: Any) -> bytes:
    said = {"id": OUTBOUND, "status": name, "timestamp": str(at), "recipient_id": PHONE}
    return update("statuses", said | fields)


def id_update(previous: str, current: str, at: int, **fields: Any) -> bytes:
    ids = {"previous": previous, "current": current}
    told = {"user_id": ids, "detail": "changed", "timestamp": str(at)} | fields
    return spell(ID_UPDATE, {"messaging_product": "whatsapp", ID_UPDATE: [told]})


def type_of(change: Any) -> str:
    value = change["value"]
    if change["field"] != "messages":
        return str(change["field"])
    if "messages" in value:
        return f"messages.{value['messages'][0].get('type', 'unknown')}"
    return f"statuses.{value['statuses'][0]['status']}" if "statuses" in value else "errors"


def event(raw: bytes, *, source: str = "whatsapp") -> Event:
    """An event as a worker hands it to a processor; every body is an occurrence of its own."""
    body = json.loads(raw)
    entry = body["entry"][0]
    return Event(
        id="-",
        source=source,
        event_id=hashlib.sha256(raw).hexdigest(),
        type=type_of(entry["changes"][0]),
        occurred_at=datetime.fromtimestamp(entry["time"], UTC) if "time" in entry else None,
        received_at=datetime.now(UTC),
        data=body,
        body=raw,
        attempt=1,
        idempotency_key="-",
    )


def apply(db: Connection, bodies: Sequence[bytes], *, source: str = "whatsapp") -> None:
    """One batch, each event to its processors."""
    events = [event(raw, source=source) for raw in bodies]
    for keep, types in KEEPERS:
        mine = [one for one in events if one.type in types]
        if mine:
            keep(mine, db)


KEYS = {
    "whatsapp_messages": ("message_id",),
    "whatsapp_message_statuses": ("message_id", "event_id"),
    "whatsapp_contacts": ("contact_id",),
    "whatsapp_templates": ("template_id",),
    "whatsapp_accounts": ("waba_id", "field", "subject"),
}
OURS = ("versions", "received_event_id", "status_event_id", "failed_event_id")
UNSAID = ("callback_data", "pricing_model")
"""What the generated events do not say."""


def tables(db: Connection) -> Model:
    """What is in the tables, in the form of the reference."""
    found: Model = {}
    for table, keys in KEYS.items():
        left_out = (*keys, *OURS, *UNSAID)
        found[table] = {}
        for row in db.execute(text(f"SELECT * FROM {table}")).mappings():
            key = tuple(row[name] for name in keys)
            found[table][key if len(keys) > 1 else key[0]] = {
                name: value for name, value in row.items() if name not in left_out
            }
    return found


def row(db: Connection, table: str) -> dict[str, Any]:
    """The only row of a table."""
    return dict(db.execute(text(f"SELECT * FROM {table}")).mappings().one())


user_ids = st.sampled_from(["US.1", "US.2", "US.3", "US.4"])
phones = st.sampled_from(["1650", "1651", "1652"])
odd: st.SearchStrategy[Any] = st.sampled_from([None, [], {}, "", "+"])
times = st.sampled_from(["1749416383", "1749416384", "1749416385", 1749416384, "soon", None])
names = st.sampled_from(["a", "ب", "🌹", ""]) | st.sampled_from([None, 7])
message_ids = st.sampled_from(["wamid.1", "wamid.2"])


def some(required: Any = None, **optional: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Objects in which any of the `optional` fields may be missing."""
    return st.fixed_dictionaries(required or {}, optional=optional)


contact_elements = some(
    user_id=user_ids | odd,
    wa_id=phones | odd,
    parent_user_id=st.sampled_from(["US.ENT.1", "US.ENT.2"]),
    profile=some(name=names, username=names),
)
images = some(id=st.just("1"), mime_type=st.just("image/png"), sha256=st.just("a"), caption=names)
contents = st.one_of(
    some({"type": st.just("text")}, text=some(body=names)),
    some({"type": st.just("image")}, image=images),
    some({"type": st.just("button")}, button=st.just({"payload": "x"})),
    some({"type": st.just("contacts")}, contacts=st.just([{"name": "x"}])),
    some(
        {"type": st.just("interactive")},
        interactive=some(button_reply=some(id=st.just("1"), title=names)),
    ),
    some({"type": st.just("reaction")}, reaction=some(message_id=message_ids, emoji=names)),
    some(
        {"type": st.just("system")},
        system=some(
            {"type": st.sampled_from(["user_changed_number", "user_changed_user_id", "other"])},
            wa_id=phones | odd,
            user_id=user_ids | odd,
        ),
    ),
)


@st.composite
def whatsapp_bodies(draw: st.DrawFn) -> bytes:
    """A body with one update; most say something of who is who."""
    time = draw(st.sampled_from([None, 1749416384, 1749416385]))
    contact = draw(contact_elements | st.none())
    persons = {"from_user_id": user_ids | odd, "from": phones | odd}
    kind = draw(st.sampled_from(["message", "message", "status", "status", ID_UPDATE, "other"]))
    if kind == "message":
        base = some({"id": message_ids}, timestamp=times, context=some(id=message_ids), **persons)
        return update("messages", draw(base) | draw(contents), contact=contact, time=time)
    if kind == "status":
        return update("statuses", draw(statuses), contact=contact, time=time)
    if kind == ID_UPDATE:
        return spell(
            ID_UPDATE, {ID_UPDATE: draw(st.lists(id_updates, min_size=1, max_size=2))}, time=time
        )
    return spell(*draw(others), time=time, waba=draw(st.sampled_from(["1", "2"])))


statuses = some(
    {
        "id": message_ids,
        "status": st.sampled_from(["sent", "delivered", "read", "played", "failed", "warning"]),
    },
    timestamp=times,
    recipient_user_id=user_ids | odd,
    recipient_id=phones | odd,
    errors=st.sampled_from(
        [
            [],
            [{"code": 131026, "title": "undeliverable"}],
            [{"code": 131047, "error_data": {"details": "closed"}}],
        ]
    ),
    pricing=some(category=st.just("service")),
) | some(
    {
        "id": message_ids,
        "status": st.sampled_from(["sent", "delivered", "read"]),
        "recipient_type": st.just("group"),
    },
    timestamp=times,
    recipient_id=st.just("group-1"),
    recipient_participant_id=phones,
    recipient_user_id=user_ids,
)
id_updates = some(
    {"user_id": some(previous=user_ids | odd, current=user_ids | odd)},
    wa_id=phones | odd,
    timestamp=times,
    parent_user_id=some(current=st.sampled_from(["US.ENT.1", "US.ENT.2"])),
)
others = st.one_of(
    st.tuples(
        st.sampled_from(TEMPLATE_TYPES),
        some(
            {"message_template_id": st.sampled_from([1, "1", 2])},
            message_template_name=names,
            message_template_language=names,
            event=st.sampled_from(["APPROVED", "REJECTED", None]),
            reason=names,
            new_quality_score=names,
            new_category=names,
            correct_category=names,
        ),
    ),
    st.tuples(
        st.sampled_from(["account_update", "security"]),
        some(phone_number=phones, event=names),
    ),
    st.tuples(
        st.just("messages"),
        some(
            {"errors": st.just([{"code": 1}]) | st.just([{"code": 2}])}, metadata=st.just(METADATA)
        ),
    ),
)


@settings(
    max_examples=examples(100),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(happened=st.lists(whatsapp_bodies(), max_size=12), arrival=st.randoms(use_true_random=False))
def test_any_order_any_repeats_and_any_batches_give_the_reference_rows(
    shared_engine: Engine, happened: list[bytes], arrival: random.Random
) -> None:
    bodies = list(dict.fromkeys(happened))
    expected = whatsapp_model({event(raw).event_id: raw for raw in bodies})
    arriving = bodies + arrival.choices(bodies, k=len(bodies) // 2) if bodies else []
    arrival.shuffle(arriving)
    with shared_engine.connect() as db:
        while arriving:
            size = arrival.randint(1, 6)
            batch, arriving = arriving[:size], arriving[size:]
            apply(db, batch)
        assert tables(db) == expected
        db.rollback()


MERGES: dict[str, tuple[list[bytes], dict[str, dict[str, Any]]]] = {
    "a number becomes a user id": (
        [
            message(type="text", **{"from": PHONE}),
            update(
                "messages",
                {"id": "2", "from": PHONE, "from_user_id": USER, "timestamp": "1749416390"},
                contact={"user_id": USER, "wa_id": PHONE, "profile": {"name": "Sheena"}},
            ),
            status("failed"),
        ],
        {USER: {"user_id": USER, "phone": PHONE, "name": "Sheena"}},
    ),
    "only a number is known": (
        [message(type="text", **{"from": PHONE}), status("sent")],
        {PHONE: {"user_id": None, "phone": PHONE}},
    ),
    "only a user id is known": (
        [message(type="text", from_user_id=USER)],
        {USER: {"user_id": USER, "phone": None}},
    ),
    "a chain of user ids": (
        [
            message(type="text", from_user_id="US.A", **{"from": "1650"}),
            id_update("US.A", "US.B", 1749416400),
            id_update("US.B", "US.C", 1749416500, wa_id="1652"),
            id_update("US.C", "US.D", 1749416500),
        ],
        {"US.D": {"user_id": "US.D", "phone": "1652"}},
    ),
    "there and back again": (
        [id_update("US.A", "US.B", 1749416400), id_update("US.B", "US.A", 1749416500)],
        {"US.A": {"user_id": "US.A"}},
    ),
    "a changed number": (
        [
            message(type="text", **{"from": "1650"}),
            message(
                type="system",
                timestamp="1749416400",
                system={"type": "user_changed_number", "wa_id": "1651"},
                **{"from": "1650"},
            ),
        ],
        {"1651": {"user_id": None, "phone": "1651"}},
    ),
    "a changed number of a user id": (
        [
            message(type="text", from_user_id=USER, **{"from": "1650"}),
            message(
                type="system",
                timestamp="1749416400",
                system={"type": "user_changed_number", "wa_id": "1651"},
                from_user_id=USER,
                **{"from": "1650"},
            ),
            status("failed", recipient_id="1651"),
        ],
        {USER: {"user_id": USER, "phone": "1651"}},
    ),
    "a changed user id": (
        [
            message(type="text", from_user_id="US.A"),
            message(
                type="system",
                timestamp="1749416400",
                system={"type": "user_changed_user_id", "user_id": "US.B"},
                from_user_id="US.A",
            ),
        ],
        {"US.B": {"user_id": "US.B", "phone": None}},
    ),
    "a number that another user has now": (
        [
            message(type="text", from_user_id="US.A", **{"from": "1650"}),
            message(type="text", from_user_id="US.B", timestamp="1749416400", **{"from": "1650"}),
        ],
        {"US.A": {"phone": "1650"}, "US.B": {"phone": "1650"}},
    ),
}


@pytest.mark.parametrize("case", MERGES)
def test_whoever_a_person_was_and_in_whatever_order_it_is_told(
    shared_engine: Engine, case: str
) -> None:
    bodies, expected = MERGES[case]
    for seed in range(6):
        arriving = random.Random(seed).sample(bodies, len(bodies))
        with shared_engine.connect() as db:
            for raw in arriving:
                apply(db, [raw])
            found = tables(db)["whatsapp_contacts"]
        assert found.keys() == expected.keys()
        for contact, columns in expected.items():
            assert found[contact].items() >= columns.items()


def test_the_messages_of_a_person_are_found_by_whatever_they_were_sent_under(
    shared_engine: Engine,
) -> None:
    with shared_engine.connect() as db:
        apply(db, MERGES["a number becomes a user id"][0])
        found = db.execute(
            text(
                "SELECT m.message_id FROM whatsapp_identities i JOIN whatsapp_messages m"
                " ON i.identity = coalesce(m.contact_user_id, m.contact_phone)"
                " WHERE i.contact_id = :user"
            ),
            {"user": USER},
        ).scalars()
        assert set(found) == {INBOUND, "2", OUTBOUND}


def test_the_documented_message(shared_engine: Engine) -> None:
    raw = update(
        "messages",
        {
            "from": PHONE,
            "from_user_id": USER,
            "id": INBOUND,
            "timestamp": "1749416383",
            "type": "text",
            "text": {"body": "Does it come in another color?"},
        },
        contact={
            "profile": {"name": "Sheena Nelson", "username": "sheena"},
            "user_id": USER,
            "wa_id": PHONE,
        },
    )
    with shared_engine.connect() as db:
        apply(db, [raw])
        found = row(db, "whatsapp_messages")
        contact = row(db, "whatsapp_contacts")
    expected = {
        "direction": "inbound",
        "waba_id": WABA,
        "phone_number_id": NUMBER_ID,
        "contact_user_id": USER,
        "contact_phone": PHONE,
        "type": "text",
        "text": "Does it come in another color?",
        "content": {"body": "Does it come in another color?"},
        "timestamp": datetime(2025, 6, 8, 20, 59, 43, tzinfo=UTC),
        "status": None,
    }
    assert found.items() >= expected.items()
    names = {"contact_id": USER, "name": "Sheena Nelson", "username": "sheena"}
    assert contact.items() >= names.items()


@pytest.mark.parametrize(
    ("said", "columns"),
    [
        (
            {
                "type": "image",
                "image": {
                    "id": "12",
                    "mime_type": "image/jpeg",
                    "sha256": "8d96",
                    "caption": "this one",
                },
            },
            {"text": "this one", "media_id": "12", "mime_type": "image/jpeg", "sha256": "8d96"},
        ),
        (
            {"type": "document", "document": {"id": 12, "filename": "a.pdf"}},
            {"text": None, "media_id": "12", "filename": "a.pdf"},
        ),
        ({"type": "button", "button": {"text": "Yes", "payload": "y"}}, {"text": "Yes"}),
        (
            {
                "type": "interactive",
                "interactive": {
                    "type": "list_reply",
                    "list_reply": {"id": "1", "title": "Red", "description": "Not blue"},
                },
            },
            {"text": "Red"},
        ),
        (
            {
                "type": "interactive",
                "interactive": {"nfm_reply": {"body": "Sent", "response_json": '{"a":1}'}},
            },
            {"text": "Sent"},
        ),
        (
            {"type": "reaction", "reaction": {"message_id": OUTBOUND, "emoji": "🌹"}},
            {"text": "🌹", "reply_to": OUTBOUND},
        ),
        (
            {"type": "text", "text": {"body": "a\x00"}, "context": {"id": OUTBOUND}},
            {"text": "a\ufffd", "reply_to": OUTBOUND, "content": {"body": "a\ufffd"}},
        ),
        (
            {"type": "contacts", "contacts": [{"name": {"formatted_name": "x"}}]},
            {"content": [{"name": {"formatted_name": "x"}}], "text": None},
        ),
        (
            {"type": "unsupported", "errors": [{"code": 131051}]},
            {"content": {"errors": [{"code": 131051}]}},
        ),
    ],
)
def test_messages_of_every_kind_say_what_they_hold(
    shared_engine: Engine, said: dict[str, Any], columns: dict[str, Any]
) -> None:
    with shared_engine.connect() as db:
        apply(db, [message(**said)])
        assert row(db, "whatsapp_messages").items() >= ({"type": said["type"]} | columns).items()


@pytest.mark.parametrize("seed", range(6))
def test_a_status_never_goes_back(shared_engine: Engine, seed: int) -> None:
    """Not even where the clock does, nor where `delivered` is left out."""
    told = [status("sent", 1750030075), status("read", 1750030074), status("played", 1750030073)]
    random.Random(seed).shuffle(told)
    seen = []
    with shared_engine.connect() as db:
        for raw in told:
            apply(db, [raw])
            seen.append(row(db, "whatsapp_messages")["status"])
        history = db.execute(text("SELECT count(*) FROM whatsapp_message_statuses")).scalar_one()
    order = ["sent", "read", "played"]
    assert seen == sorted(seen, key=order.index)
    assert (seen[-1], history) == ("played", 3)


def test_why_a_message_failed_is_kept_whatever_comes_after_it(shared_engine: Engine) -> None:
    error = {
        "code": 131047,
        "title": "Re-engagement message",
        "error_data": {"details": "More than 24 hours have passed"},
    }
    with shared_engine.connect() as db:
        apply(db, [status("failed", errors=[error]), status("sent", 1750030099)])
        failed = row(db, "whatsapp_messages")
        apply(db, [status("delivered", 1750030000)])
        delivered = row(db, "whatsapp_messages")
    why = {
        "error_code": 131047,
        "error_title": "Re-engagement message",
        "error_details": "More than 24 hours have passed",
    }
    assert failed.items() >= (why | {"status": "failed", "direction": "outbound"}).items()
    assert delivered.items() >= (why | {"status": "delivered"}).items()


def test_a_template_keeps_what_was_said_last_of_each_column(shared_engine: Engine) -> None:
    named = {
        "message_template_id": 1689556908129832,
        "message_template_name": "order_delivery",
        "message_template_language": "en_US",
    }
    told = [
        spell(
            "message_template_status_update",
            named | {"event": "APPROVED", "reason": "NONE"},
            time=1750030073,
        ),
        spell(
            "message_template_quality_update",
            named | {"previous_quality_score": "GREEN", "new_quality_score": "YELLOW"},
            time=1750030074,
        ),
        spell(
            "template_category_update",
            named | {"previous_category": "UTILITY", "new_category": "MARKETING"},
            time=1750030075,
        ),
    ]
    with shared_engine.connect() as db:
        apply(db, told[::-1])
        found = row(db, "whatsapp_templates")
    expected = {
        "template_id": "1689556908129832",
        "name": "order_delivery",
        "language": "en_US",
        "status": "APPROVED",
        "reason": "NONE",
        "quality": "YELLOW",
        "category": "MARKETING",
    }
    assert found.items() >= expected.items()


def test_other_sources_events_of_the_same_types_are_left_alone(shared_engine: Engine) -> None:
    with shared_engine.connect() as db:
        apply(db, [message(type="text", from_user_id=USER), status("sent")], source="other")
        counts = [db.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() for table in KEYS]
    assert counts == [0] * len(KEYS)


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (update("messages", {"type": "text"}), "id is missing"),
        (update("statuses", {"id": 7, "status": "sent"}), "id is not a string"),
        (spell(ID_UPDATE, {}), "user_id_update is missing"),
        (spell("message_template_status_update", {}), "message_template_id is missing"),
        (
            spell("security", {}).replace(f'"id": "{WABA}"'.encode(), b'"id": null'),
            "id is missing",
        ),
    ],
)
def test_an_update_that_cannot_be_used_is_discarded_with_a_sentence(
    shared_engine: Engine, raw: bytes, sentence: str
) -> None:
    with shared_engine.connect() as db, pytest.raises(Discard) as caught:
        apply(db, [raw])
    assert str(caught.value) == sentence


def test_a_long_chain_and_a_circle_end_where_the_newest_change_leads() -> None:
    chain = {str(n): Link(str(n + 1), "0") for n in range(5_000)} | {"5000": Link(None, None)}
    assert set(ends_of_chains(chain).values()) == {"5000"}
    circle = {"a": Link("b", "1"), "b": Link("c", "3"), "c": Link("a", "2"), "d": Link("a", "9")}
    assert set(ends_of_chains(circle).values()) == {"c"}


def test_workers_that_each_tell_a_part_of_a_chain_make_one_contact(engine: Engine) -> None:
    """Without taking turns, two transactions do not see each other's links."""
    changes = [id_update(f"US.{n}", f"US.{n + 1}", 1749416400 + n) for n in range(24)]
    random.Random(1).shuffle(changes)
    failures: list[BaseException] = []

    def tell(part: Sequence[bytes]) -> None:
        try:
            for raw in part:
                with engine.begin() as db:
                    apply(db, [raw])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=tell, args=(changes[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with engine.connect() as db:
        assert list(tables(db)["whatsapp_contacts"]) == ["US.24"]
