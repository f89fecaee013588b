"""The read model on payloads as senders really send them: each rule by itself, in every order."""

import itertools
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from ingest.phones import normal_phone
from tests.integration.conftest import Worker
from tests.integration.test_read_model import apply, event
from tests.support.deliver import body, deliver
from tests.support.effort import examples
from tests.support.rows import execute, one, rows
from workers import processors, registry
from workers.processors.orders import MOST_AT_ONCE

BUILT_IN = [
    each for each in registry.declared if each.function.__module__.startswith(processors.__name__)
]
ELEVEN, TWELVE = "2024-01-20T11:00:00Z", "2024-01-20T12:00:00Z"
AT_ELEVEN, AT_TWELVE = datetime(2024, 1, 20, 11, tzinfo=UTC), datetime(2024, 1, 20, 12, tzinfo=UTC)


def in_any_order(
    engine: Engine, bodies: Sequence[bytes], table: str, check: Callable[[Any], None]
) -> None:
    """Check the one row of a table that bodies make, in every order, one by one and at once."""
    for order in itertools.permutations(bodies):
        for batches in ([[raw] for raw in order], [list(order)]):
            with engine.connect() as db:
                for batch in batches:
                    apply(db, batch)
                check(db.execute(text(f"SELECT * FROM {table}")).mappings().one())
                db.rollback()


@pytest.mark.parametrize(
    ("spelled", "total"),
    [
        ("449.97000000000003", "449.97000000000003"),
        ('"449.97000000000003"', "449.97000000000003"),
        ("1250.00", "1250.00"),
        ("1e2", "100"),
        ("1e131071", "1" + "0" * 131_071),
        ("1e-16383", "0." + "0" * 16_382 + "1"),
        ("-0.10", "-0.10"),
    ],
)
def test_an_amount_keeps_its_digits(shared_engine: Engine, spelled: str, total: str) -> None:
    raw = f'{{"event":"order.created","data":{{"order_id":1,"total":{spelled}}}}}'.encode()
    with shared_engine.connect() as db:
        apply(db, [raw])
        assert db.execute(text("SELECT total::text FROM orders")).scalar_one() == total


@pytest.mark.parametrize("odd", ["NaN", "Infinity", "1_000", " 12", "1,250.00", "", True, [], {}])
def test_what_is_no_amount_touches_none(shared_engine: Engine, odd: Any) -> None:
    def check(row: Any) -> None:
        assert row["total"] == Decimal("7.50")

    created = [
        body("order.created", {"order_id": 1, "total": "7.50", "created_at": ELEVEN}),
        body("order.created", {"order_id": 1, "total": odd, "created_at": TWELVE}, id="again"),
    ]
    in_any_order(shared_engine, created, "orders", check)


CREATED_TALK, UPDATED_CONTACT = "conversation.created", "contact.updated"
KNOWN: list[tuple[str, str, dict[str, Any], dict[str, Any], str, Any]] = [
    # type, its time, what is known, what comes an hour later, the column, its value
    ("conversation.updated", "updated_at", {"status": "active"}, {}, "status", "active"),
    ("conversation.updated", "updated_at", {"status": "a"}, {"status": None}, "status", "a"),
    (CREATED_TALK, "created_at", {"contact_id": 7}, {}, "contact_id", 7),
    (CREATED_TALK, "created_at", {"contact_id": "7"}, {"contact_id": {}}, "contact_id", 7),
    (CREATED_TALK, "created_at", {"phone_number": "9"}, {}, "phone_number", "9"),
    (CREATED_TALK, "created_at", {"status": "bot"}, {}, "status", "bot"),
    ("message.received", "timestamp", {"body": "a"}, {"body": 7}, "body", "a"),
    ("message.received", "timestamp", {"from": 966511110001}, {}, "from_number", "966511110001"),
    ("message.received", "timestamp", {"from": "9"}, {"from": 9.5}, "from_number", "9"),
    ("order.created", "created_at", {"total": 7}, {}, "total", 7),
    ("order.created", "created_at", {"currency": "SAR"}, {"currency": 1}, "currency", "SAR"),
    ("order.created", "created_at", {"status": "pending"}, {}, "status", "pending"),
    (UPDATED_CONTACT, "updated_at", {"is_favorite": True}, {}, "is_favorite", True),
    *(
        (UPDATED_CONTACT, "updated_at", {column: spelled}, {column: "?"}, column, value)
        for column in ("is_favorite",)
        for spelled, value in ((1, True), (0, False), ("true", True), ("0", False), ("False", 0))
    ),
    (UPDATED_CONTACT, "updated_at", {"phone": 9665}, {"phone": {}}, "phone", "9665"),
    (UPDATED_CONTACT, "updated_at", {"phone": "9"}, {"phone": None}, "phone", None),  # cleared
    (UPDATED_CONTACT, "updated_at", {"contact_group_id": "12"}, {}, "contact_group_id", 12),
    (UPDATED_CONTACT, "updated_at", {"created_at": ELEVEN}, {}, "created_at", AT_ELEVEN),
]  # fmt: skip


@pytest.mark.parametrize(("event_type", "time", "known", "later", "column", "value"), KNOWN)
def test_what_is_absent_or_unreadable_touches_nothing(
    shared_engine: Engine,
    event_type: str,
    time: str,
    known: dict[str, Any],
    later: dict[str, Any],
    column: str,
    value: Any,
) -> None:
    family = event_type.partition(".")[0]
    key = {f"{family}_id": "w1" if family == "message" else 1}
    bodies = [
        body(event_type, key | known | {time: ELEVEN}, id="e1"),
        body(event_type, key | later | {time: TWELVE}, id="e2"),
        body(event_type, key | {time: TWELVE}, id="e3"),
    ]

    def check(row: Any) -> None:
        assert row[column] == value
        assert row["last_event_id"] == f"{event_type}:@e3"

    in_any_order(shared_engine, bodies, f"{family}s", check)


def test_an_older_value_fills_what_a_newer_event_left_open(shared_engine: Engine) -> None:
    """Also between two that say it, and whatever the newest says."""
    bodies = [
        body("conversation.updated", {"conversation_id": 1, "status": "a", "updated_at": ELEVEN}),
        body(
            "conversation.updated",
            {"conversation_id": 1, "status": "b", "updated_at": "2024-01-20T11:30:00Z"},
        ),
        body("conversation.updated", {"conversation_id": 1, "updated_at": TWELVE}),
        body(
            "conversation.created",
            {"conversation_id": 1, "status": "c", "created_at": "2024-01-20T10:00:00Z"},
        ),
    ]

    def check(row: Any) -> None:
        assert (row["status"], row["updated_at"]) == ("b", AT_TWELVE)

    in_any_order(shared_engine, bodies, "conversations", check)


def test_the_status_of_a_creation_counts_as_of_then(shared_engine: Engine) -> None:
    created = body(
        "conversation.created", {"conversation_id": 1, "status": "open", "created_at": TWELVE}
    )
    for updated_at, status in {ELEVEN: "open", TWELVE: "closed"}.items():
        updated = {"conversation_id": 1, "status": "closed", "updated_at": updated_at}

        def check(row: Any, status: str = status) -> None:
            assert row["status"] == status

        bodies = [created, body("conversation.updated", updated)]
        in_any_order(shared_engine, bodies, "conversations", check)


UNDATED: list[tuple[str, dict[str, Any], dict[str, Any], str, Any]] = [
    ("conversation.updated", {"status": "a"}, {"status": "b"}, "status", "b"),
    (
        "order.status.updated",
        {"new_status": "accepted"},
        {"new_status": "shipped"},
        "status",
        "shipped",
    ),
    ("contact.updated", {"name": "a"}, {"name": "b"}, "name", "b"),
    ("contact.created", {"name": "a"}, {"name": "b"}, "name", "b"),
    ("order.created", {"total": 1}, {"total": 2}, "total", 2),
    ("conversation.created", {"contact_id": 1}, {"contact_id": 2}, "contact_id", 2),
    ("message.received", {"body": "a"}, {"body": "b"}, "body", "b"),
    ("message.status.updated", {"status": "warned"}, {"status": "told"}, "status", "told"),
]


@pytest.mark.parametrize(("event_type", "old", "new", "column", "value"), UNDATED)
@pytest.mark.parametrize("ids", [("a", "b"), ("b", "a")])
@pytest.mark.parametrize("time", [None, "yesterday"])
def test_the_envelopes_time_decides_where_the_data_has_none(
    shared_engine: Engine,
    event_type: str,
    old: dict[str, Any],
    new: dict[str, Any],
    column: str,
    value: Any,
    ids: tuple[str, str],
    time: str | None,
) -> None:
    family = event_type.partition(".")[0]
    key = {f"{family}_id": "w1" if family == "message" else 1}
    undated = {} if time is None else dict.fromkeys(("timestamp", "created_at", "updated_at"), time)
    bodies = [
        body(event_type, key | old | undated, timestamp=ELEVEN, id=ids[0]),
        body(event_type, key | new | undated, timestamp=TWELVE, id=ids[1]),
    ]

    def check(row: Any) -> None:
        assert row[column] == value
        assert row["last_event_at"] == AT_TWELVE
        assert row["last_event_id"] == event(bodies[1]).event_id

    in_any_order(shared_engine, bodies, f"{family}s", check)


def changes(*steps: tuple[str | None, str], at: str = TWELVE) -> list[bytes]:
    return [
        body(
            "order.status.updated",
            {"order_id": 1, "old_status": old, "new_status": new, "updated_at": at},
        )
        for old, new in steps
    ]


@pytest.mark.parametrize(
    ("steps", "ends"),
    [
        ([("pending", "accepted"), ("accepted", "shipped")], {"shipped"}),
        ([("a", "b"), ("b", "c"), ("c", "d")], {"d"}),
        ([(None, "accepted"), ("accepted", "shipped")], {"shipped"}),
        ([("a", "b"), ("b", "c"), ("c", "b")], {"b"}),  # there and back
        ([("a", "b"), ("b", "a"), ("a", "c")], {"c"}),
        ([("a", "a"), ("a", "b")], {"b"}),
        # By the event id: a gap, a branch, a circle.
        ([("a", "b"), ("c", "d")], {"b", "d"}),
        ([("a", "b"), ("a", "c")], {"b", "c"}),
        ([("a", "b"), ("b", "a")], {"a", "b"}),
    ],
)  # fmt: skip
def test_of_changes_in_one_second_the_chain_decides_before_ids_do(
    shared_engine: Engine, steps: list[tuple[str | None, str]], ends: set[str]
) -> None:
    bodies = misleading(steps, ends)
    candidates = {
        event(raw).event_id: new for raw, (_, new) in zip(bodies, steps, strict=True) if new in ends
    }
    last = max(candidates)

    def check(row: Any) -> None:
        assert row["status"] == candidates[last]
        assert row["updated_event_id"] == row["last_event_id"] == last

    earlier = changes(("x", "pending"), at=ELEVEN)
    in_any_order(shared_engine, [*bodies, *earlier][:4], "orders", check)


def misleading(steps: list[tuple[str | None, str]], ends: set[str]) -> list[bytes]:
    """Return changes at a second at which the greatest id does not belong to an end, if it may."""
    listed = [changes(*steps, at=f"2024-01-20T12:00:{second:02}Z") for second in range(60)]
    return next((bodies for bodies in listed if newest_by_id(bodies, steps) not in ends), listed[0])


def newest_by_id(bodies: list[bytes], steps: list[tuple[str | None, str]]) -> str:
    """Return the status that the change with the greatest id leads to."""
    return max(zip(bodies, steps, strict=True), key=lambda each: event(each[0]).event_id)[1][1]


def test_of_changes_in_one_second_an_operators_last_copy_counts_before_the_chain(
    shared_engine: Engine,
) -> None:
    def change(old: str, new: str, **more: object) -> bytes:
        data = {"order_id": 1, "old_status": old, "new_status": new, "updated_at": TWELVE}
        return body("order.status.updated", data, **more)

    first = change("pending", "accepted")
    wrong = change("accepted", "shipped", id="\U0001f339")  # greater than a copy's id
    edited = change("accepted", "pending", copy=1)
    again = change("pending", "accepted", copy=2)

    def check(row: Any) -> None:
        assert row["status"] == "accepted"
        assert row["updated_event_id"] == row["last_event_id"] == event(again).event_id

    in_any_order(shared_engine, [first, wrong, edited, again], "orders", check)


def test_a_chain_ends_alike_whatever_the_ids_are(shared_engine: Engine) -> None:
    """The old way was a coin toss: right for 17 of 30 orders."""
    with shared_engine.connect() as db:
        for number in range(30):
            steps = [("pending", "accepted"), ("accepted", "shipped")]
            bodies = [
                body(
                    "order.status.updated",
                    {"order_id": number, "old_status": old, "new_status": new}
                    | {"updated_at": TWELVE},
                )
                for old, new in steps
            ]
            random.Random(number).shuffle(bodies)
            for raw in bodies:
                apply(db, [raw])
        assert set(db.execute(text("SELECT status FROM orders")).scalars()) == {"shipped"}


def test_of_too_many_changes_in_one_second_the_id_decides(shared_engine: Engine) -> None:
    steps = [(str(number), str(number + 1)) for number in range(MOST_AT_ONCE + 1)]
    bodies = changes(*steps)
    expected = max((event(raw).event_id, new) for raw, (_, new) in zip(bodies, steps, strict=True))
    for seed in range(3):
        random.Random(seed).shuffle(bodies)
        with shared_engine.connect() as db:
            apply(db, bodies[:60])
            apply(db, bodies[60:])
            row = db.execute(text("SELECT updated_event_id, status FROM orders")).one()
            assert tuple(row) == expected
            apply(db, changes(("x", "done"), at="2024-01-20T13:00:00Z"))
            assert db.execute(text("SELECT status FROM orders")).scalar_one() == "done"
            db.rollback()


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        (["read", "played", "delivered"], "played"),
        (["READ", "delivered"], "read"),
        (["Delivered", "sent"], "delivered"),
        (["read", "deleted", "played"], "deleted"),
        (["failed", "sent", "warning"], "failed"),
        (["Warning"], "Warning"),
    ],
)
def test_a_message_moves_on_by_what_its_statuses_mean(
    shared_engine: Engine, statuses: list[str], status: str
) -> None:
    """Those that we know in any case of letters; others are kept as they are, below all."""
    bodies = [
        body("message.status.updated", {"message_id": "w", "status": each, "timestamp": at})
        for each, at in zip(statuses, (ELEVEN, TWELVE, TWELVE), strict=False)
    ]

    def check(row: Any) -> None:
        assert row["status"] == status
        assert row["status_event_id"] == row["last_event_id"]

    in_any_order(shared_engine, bodies, "messages", check)


LONG = "".join(random.Random(7).choices("abcdefghijklmnopqrstuvwxyz0123456789🌹ب", k=8_000))
"""Nothing that compresses."""


@pytest.mark.parametrize(
    "phone", [LONG, "9" * 8_000, f"+{'7' * 8_000}", "٣" * 8_000, "a\x00\ud800\x01"]
)
def test_a_long_or_odd_phone_number_is_kept_though_its_column_is_searched(
    shared_engine: Engine, phone: str
) -> None:
    with shared_engine.connect() as db:
        apply(
            db,
            [
                body("message.received", {"message_id": "w", "from": phone, "to": phone}),
                body("conversation.created", {"conversation_id": 1, "phone_number": phone}),
                body("contact.created", {"id": 1, "phone": phone, "email": phone, "avatar": phone}),
                body("conversation.updated", {"conversation_id": 1, "status": phone}),
                body(
                    "order.status.updated",
                    {"order_id": 1, "new_status": phone, "old_status": phone},
                ),
                body("message.received", {"message_id": LONG[:500], "type": phone, "body": phone}),
            ],
        )
        for table, column in {
            "messages": "from_number",
            "conversations": "phone_number",
            "contacts": "phone",
        }.items():
            kept = db.execute(
                text(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL")
            ).scalar_one()
            assert kept == phone.replace("\x00", "�").replace("\ud800", "�")


def test_what_postgresql_can_never_store_is_dead_at_once(
    engine: Engine, database_url: str, make_worker: Callable[..., Worker], declared: list[Any]
) -> None:
    """A user's own index may have a limit that ours have not."""
    declared.extend(BUILT_IN)
    execute(engine, "CREATE INDEX own ON messages (body)")
    bodies = [body("message.received", {"message_id": str(n), "body": "short"}) for n in range(5)]
    bodies.append(body("message.received", {"message_id": "long", "body": LONG}))
    make_worker().process(deliver(database_url, bodies))
    assert one(engine, "SELECT count(*) FROM messages") == 5
    (dead,) = rows(
        engine,
        "SELECT j.state, j.attempt, a.error_message FROM jobs j JOIN attempts a ON a.job = j.id",
    )
    assert dead == {
        "state": "dead",
        "attempt": 1,
        "error_message": "PostgreSQL cannot store it: ProgramLimitExceeded",
    }


def test_what_is_unreadable_is_counted_by_its_field(
    engine: Engine, database_url: str, make_worker: Callable[..., Worker], declared: list[Any]
) -> None:
    declared.extend(BUILT_IN)
    bodies = [
        body("order.created", {"order_id": 1, "total": "much", "created_at": "20250101"}),
        body("order.created", {"order_id": 2, "total": "more", "currency": None}),
        body("order.created", {"order_id": "x", "total": "most"}),  # dead: says nothing
        body("contact.updated", {"id": 1, "is_favorite": "yes", "phone": 7.5, "name": None}),
        body("message.status.updated", {"message_id": "w", "status": "read", "timestamp": "?"}),
    ]
    make_worker().process(deliver(database_url, bodies))
    counted = rows(
        engine,
        "SELECT label, sum(count) AS times FROM activity WHERE what = 'unreadable' GROUP BY label",
    )
    assert {row["label"]: row["times"] for row in counted} == {
        "orders.total": 2,
        "orders.created_at": 1,
        "contacts.is_favorite": 1,
        "contacts.phone": 1,
        "messages.timestamp": 1,
    }


phones = st.text(
    st.sampled_from("0123456789+-() ./٣۳３²ⅷ½‎‪\u00a0\u202f\u2011\u2212abB.AÅe\u0301\u200b\u00ad\t\n")
    | st.characters(exclude_categories=["Cs", "Cn"], exclude_characters="\x00"),
    max_size=30,
)


@settings(
    max_examples=examples(100),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(phones, min_size=1, max_size=20))
def test_a_phone_number_has_one_form_here_and_in_the_database(
    shared_engine: Engine, written: list[str]
) -> None:
    with shared_engine.connect() as db:
        found = db.execute(
            text("SELECT ingest.normal_phone(p) FROM unnest(CAST(:p AS text[])) AS p"),
            {"p": written},
        ).scalars()
        assert list(found) == [normal_phone(each) for each in written]
    for each in written:
        assert normal_phone(normal_phone(each)) == normal_phone(each)


def test_rows_of_the_release_before_go_on_as_they_would_have(shared_engine: Engine) -> None:
    """They have no versions of their fields: their times and event ids say which events those
    were."""
    conversation = f"""
        INSERT INTO conversations (conversation_id, status, updated_at, updated_event_id,
                                   last_event_id)
        VALUES (1, 'new', '{TWELVE}', 'conversation.updated:#2', 'x')"""
    message = f"""
        INSERT INTO messages (message_id, status, status_at, status_event_id, last_event_id)
        VALUES ('w', 'READ', '{ELEVEN}', 'message.status.updated:w:READ', 'x')"""
    with shared_engine.connect() as db:
        db.execute(text(conversation))
        db.execute(text(message))
        older = {"conversation_id": 1, "status": "old", "updated_at": ELEVEN}
        apply(
            db,
            [
                body("conversation.updated", older),
                body("conversation.updated", {"conversation_id": 1}, timestamp=TWELVE),
                body(
                    "message.status.updated",
                    {"message_id": "w", "status": "delivered", "timestamp": TWELVE},
                ),
            ],
        )
        assert db.execute(text("SELECT status FROM conversations")).scalar_one() == "new"
        assert db.execute(text("SELECT status FROM messages")).scalar_one() == "READ"
