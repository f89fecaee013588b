"""The rows depend on the set of events only: not on order, repeats, batches or replays."""

import dataclasses
import json
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from ingest.sources import operator
from tests.integration.conftest import Worker
from tests.support.deliver import body, deliver
from tests.support.effort import examples
from tests.support.reference import read_model
from tests.support.rows import one, rows
from tests.support.sources import awalchat
from tests.support.tables import tables
from workers import Discard, Event
from workers.processors.contacts import keep_contacts
from workers.processors.conversations import keep_conversations
from workers.processors.messages import keep_messages
from workers.processors.orders import keep_orders

KEEPERS: dict[str, Callable[[Sequence[Event], Connection], None]] = {
    "message": keep_messages,
    "conversation": keep_conversations,
    "order": keep_orders,
    "contact": keep_contacts,
}
source = awalchat()


def event(raw: bytes) -> Event:
    """An event as a worker hands it to a processor. `copy` numbers what an operator has edited."""
    envelope = source.parse(raw)
    copy = envelope.fields.get("copy")
    event_id = (
        source.identify(envelope).event_id
        if copy is None
        else operator.event_id(envelope.type, source.slug, UUID(int=copy))
    )
    return Event(
        id="-",
        source="awalchat",
        event_id=event_id,
        type=envelope.type,
        occurred_at=envelope.occurred_at,
        received_at=datetime.now(UTC),
        data=envelope.data,
        body=raw,
        attempt=1,
        idempotency_key="-",
    )


def apply(db: Connection, bodies: Sequence[bytes]) -> None:
    """One batch, each event to its family's processor."""
    events = [event(raw) for raw in bodies]
    for family, keep in KEEPERS.items():
        mine = [each for each in events if each.type.startswith(f"{family}.")]
        if mine:
            keep(mine, db)


def by_id(bodies: Sequence[bytes]) -> dict[str, bytes]:
    """The set of events: of bodies under one id, the first."""
    found: dict[str, bytes] = {}
    for raw in bodies:
        found.setdefault(event(raw).event_id, raw)
    return found


ids = st.integers(1, 2)
spelled_ids = ids | ids.map(str)
moments = [
    "0001-01-01T00:00:00Z",  # the zero time of some languages, no time at all for others
    "2024-01-20T10:00:00Z",
    "2024-01-20T10:00:01Z",
    "2024-01-20T13:00:01+03:00",
    "2024-02-01T00:00:00Z",
]
stamps = st.sampled_from(moments)
maybe_stamp = st.sampled_from(
    [None, *moments, "yesterday", "20250101", "2024-01-20", 1705744801, "1705744800000", 17]
)
odd: st.SearchStrategy[Any] = st.sampled_from([None, 7.5, [], {}])
texts = st.sampled_from(["a", "ب", "", "🌹"])
phones = st.sampled_from(["+966 5", "SA.abc", 966511110001]) | odd
order_statuses = st.sampled_from(["pending", "accepted", "shipped", "delivered"])


def make(event_type: str, **fields: Any) -> Any:
    return st.fixed_dictionaries(
        {
            "event": st.just(event_type),
            "data": st.fixed_dictionaries(
                {name: each for name, each in fields.items() if not name.startswith("maybe_")},
                optional={
                    name.removeprefix("maybe_"): each
                    for name, each in fields.items()
                    if name.startswith("maybe_")
                },
            ),
        },
        optional={
            "timestamp": stamps | st.just("soon"),
            "id": st.sampled_from(["a", "b", 1]),
            "copy": st.sampled_from([1, 2]),
        },
    )


message_ids = ids.map(lambda number: f"wamid.{number}")
happenings = st.one_of(
    make(
        "message.received",
        message_id=message_ids,
        maybe_conversation_id=spelled_ids | odd,
        maybe_from=phones,
        maybe_to=phones,
        maybe_type=texts,
        maybe_body=texts | odd,
        maybe_timestamp=maybe_stamp,
    ),
    make(
        "message.status.updated",
        message_id=message_ids,
        status=st.sampled_from(
            ["sent", "delivered", "read", "READ", "failed", "played", "deleted", "warning"]
        ),
        maybe_timestamp=maybe_stamp,
    ),
    make(
        "conversation.created",
        conversation_id=spelled_ids,
        maybe_contact_id=spelled_ids | odd,
        maybe_phone_number=phones,
        maybe_status=texts | st.none(),
        maybe_created_at=maybe_stamp,
    ),
    make(
        "conversation.updated",
        conversation_id=spelled_ids,
        maybe_status=texts | st.none(),
        maybe_updated_at=maybe_stamp,
    ),
    make(
        "order.created",
        order_id=spelled_ids,
        maybe_status=st.just("pending") | st.none(),
        maybe_conversation_id=spelled_ids | odd,
        maybe_total=st.sampled_from([Decimal("1250.00"), 7, Decimal("0.10"), "12.50", "x", None]),
        maybe_currency=st.just("SAR") | odd,
        maybe_created_at=maybe_stamp,
    ),
    make(
        "order.status.updated",
        order_id=spelled_ids,
        new_status=order_statuses,
        maybe_old_status=order_statuses,
        maybe_updated_at=maybe_stamp,
    ),
    make(
        "contact.created",
        id=spelled_ids,
        maybe_name=texts | odd,
        maybe_phone=phones,
        maybe_email=texts | odd,
        maybe_is_favorite=st.sampled_from([True, False, 0, 1, "0", "true", 2, "yes", None]),
        maybe_created_at=maybe_stamp,
    ),
    make(
        "contact.updated",
        contact_id=spelled_ids,
        maybe_name=texts | odd,
        maybe_avatar=texts,
        maybe_contact_group_id=spelled_ids | odd,
        maybe_updated_at=maybe_stamp,
    ),
)


def spell(happening: dict[str, Any]) -> bytes:
    return json.dumps(happening, default=lambda value: Number(value)).encode()


class Number(float):
    """Spells a decimal with its own digits."""

    def __new__(cls, value: Decimal) -> "Number":
        made = super().__new__(cls, value)
        made.digits = str(value)
        return made

    digits: str

    def __repr__(self) -> str:
        return self.digits


@settings(
    max_examples=examples(250),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(happened=st.lists(happenings, max_size=14), arrival=st.randoms(use_true_random=False))
def test_any_order_any_repeats_and_any_batches_give_the_reference_rows(
    shared_engine: Engine, happened: list[dict[str, Any]], arrival: random.Random
) -> None:
    bodies = list(by_id([spell(each) for each in happened]).values())
    expected = read_model(by_id(bodies))
    arriving = bodies + arrival.choices(bodies, k=len(bodies) // 2) if bodies else []
    arrival.shuffle(arriving)
    with shared_engine.connect() as db:
        while arriving:
            size = arrival.randint(1, 6)
            batch, arriving = arriving[:size], arriving[size:]
            apply(db, batch)
        assert tables(db) == expected
        db.rollback()


def test_last_event_is_the_newest_whatever_came_last(shared_engine: Engine) -> None:
    created = body("order.created", {"order_id": 1, "created_at": "2024-01-20T11:00:00Z"})
    shipped = body(
        "order.status.updated",
        {"order_id": 1, "new_status": "shipped", "updated_at": "2024-01-20T12:00:00Z"},
    )
    accepted = body(
        "order.status.updated",
        {"order_id": 1, "new_status": "accepted", "updated_at": "2024-01-20T11:30:00Z"},
    )
    with shared_engine.connect() as db:
        for raw in (shipped, created, accepted):
            apply(db, [raw])
        row = db.execute(text("SELECT * FROM orders")).mappings().one()
    assert row["status"] == "shipped"
    assert row["last_event_at"] == datetime(2024, 1, 20, 12, tzinfo=UTC)
    assert row["last_event_id"] == event(shipped).event_id


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (body("message.received", {}), "message_id is missing"),
        (body("message.received", {"message_id": 7}), "message_id is not a string"),
        (body("message.received", {"message_id": "x" * 501}), "message_id is out of range"),
        (body("message.received", {"message_id": "a\x00"}), "message_id is out of range"),
        (
            body("message.received", {"message_id": "a", "conversation_id": 2**63}),
            "conversation_id is out of range",
        ),
        (
            body("message.status.updated", {"message_id": "a", "status": 7}),
            "status is not a string",
        ),
        (body("message.status.updated", {"message_id": "a"}), "status is missing"),
        (body("conversation.created", {"conversation_id": None}), "conversation_id is missing"),
        (
            body("conversation.updated", {"conversation_id": 1, "status": ["x"]}),
            "status is not a string",
        ),
        (body("order.created", {"order_id": 2**64}), "order_id is out of range"),
        (body("order.created", {"order_id": "9" * 400}), "order_id is out of range"),
        (body("order.created", {"order_id": 1.5}), "order_id is not a whole number"),
        (body("order.created", {"order_id": True}), "order_id is not a whole number"),
        *(
            (
                b'{"event":"order.created","data":{"order_id":1,"total":' + total + b"}}",
                "total is out of range",
            )
            for total in (
                b"1e131072",
                b"-1e400000000",
                b'"1e400000000"',
                b"1e99999999999999999999",
                b"1e-16384",
                b"9" * 131_073,
                b"0." + b"1" * 16_384,
            )
        ),
        (body("order.created", {"order_id": 1, "status": {}}), "status is not a string"),
        (body("order.status.updated", {"order_id": 1}), "new_status is missing"),
        (body("contact.created", {"name": "x"}), "contact_id or id is missing"),
    ],
)
def test_a_payload_that_cannot_be_used_is_discarded_with_a_sentence_that_names_the_field(
    shared_engine: Engine, raw: bytes, sentence: str
) -> None:
    with shared_engine.connect() as db, pytest.raises(Discard) as caught:
        apply(db, [raw])
    assert str(caught.value) == sentence


@pytest.mark.parametrize("odd", [None, 7, "yesterday", "", [], {}, "2024-13-45", "99999999999"])
def test_an_unreadable_time_or_optional_field_is_null(shared_engine: Engine, odd: Any) -> None:
    with shared_engine.connect() as db:
        apply(
            db,
            [
                body("order.created", {"order_id": 1, "created_at": odd, "currency": []}),
                body("message.received", {"message_id": "a", "timestamp": odd, "body": 9}),
                body("contact.updated", {"id": 1, "updated_at": odd, "is_favorite": "yes"}),
            ],
        )
        for table, columns in {
            "orders": ("created_at", "currency"),
            "messages": ("timestamp", "body"),
            "contacts": ("updated_at", "is_favorite"),
        }.items():
            row = db.execute(text(f"SELECT * FROM {table}")).mappings().one()
            assert [row[column] for column in columns] == [None, None]


def test_money_keeps_its_digits(shared_engine: Engine) -> None:
    totals = dict(
        enumerate(
            [
                "99999999999999.99",
                "1250.00",
                "0.000000000001",
                "-12",
                "449.97000000000003",
                "9" * 131_072,
                "0." + "1" * 16_383,
            ]
        )
    )
    with shared_engine.connect() as db:
        for order_id, total in totals.items():
            raw = f'{{"event":"order.created","data":{{"order_id":{order_id},"total":{total}}}}}'
            apply(db, [raw.encode()])
        found = db.execute(text("SELECT order_id, total::text FROM orders")).all()
    assert dict(found) == totals


def test_text_that_postgres_refuses_is_kept_as_near_as_it_can_be(shared_engine: Engine) -> None:
    with shared_engine.connect() as db:
        apply(db, [body("message.received", {"message_id": "a", "body": "a\x00b\ud800c"})])
        assert db.execute(text("SELECT body FROM messages")).scalar_one() == "a�b�c"


def test_every_event_of_a_batch_is_worked_on_when_one_is_unusable(
    engine: Engine, database_url: str, make_worker: Callable[..., Worker], declared: list[Any]
) -> None:
    from workers import registry

    declared.extend(each for each in _built_in() if each not in registry.declared)
    bodies = [body("order.created", {"order_id": n if n != 13 else "x"}) for n in range(30)]
    make_worker().process(deliver(database_url, bodies))
    assert one(engine, "SELECT count(*) FROM orders") == 29
    (dead,) = rows(
        engine,
        "SELECT j.state, a.error_message FROM jobs j JOIN attempts a ON a.job = j.id",
    )
    assert dead == {"state": "dead", "error_message": "order_id is not a whole number"}


def _built_in() -> list[Any]:
    from workers.registry import Declaration

    families = {
        "messages": (keep_messages, ("message.received", "message.status.updated")),
        "orders": (keep_orders, ("order.created", "order.status.updated")),
    }
    return [
        Declaration(
            function=function,
            types=types,
            name=name,
            batch=True,
            queue="events",
            threads=1,
            max_attempts=None,
            timeout_s=None,
            retry_base_s=None,
            retry_max_delay_s=None,
        )
        for name, (function, types) in families.items()
    ]


def test_two_workers_merging_the_same_rows_do_not_deadlock(engine: Engine) -> None:
    import threading

    failures: list[BaseException] = []

    def merge(seed: int) -> None:
        shuffled = [body("order.created", {"order_id": n, "total": seed}) for n in range(200)]
        random.Random(seed).shuffle(shuffled)
        try:
            for _ in range(5):
                with engine.begin() as db:
                    apply(db, shuffled)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=merge, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_another_senders_events_of_the_same_types_are_left_alone(engine: Engine) -> None:
    """Salla's `order.created` is not AwalChat's."""
    raw = b'{"event": "order.created", "data": {"order_id": 1, "total": 5}}'
    with engine.begin() as db:
        keep_orders([dataclasses.replace(event(raw), source="another")], db)
        assert db.execute(text("SELECT count(*) FROM orders")).scalar_one() == 0
        keep_orders([event(raw)], db)
        assert db.execute(text("SELECT count(*) FROM orders")).scalar_one() == 1
