"""What a selection means: by fields and texts of bodies, by names, by failures, by what events are
about. Each as a condition of one statement (replays) and in a list (slices of events)."""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from ingest.ids import received_at
from ingest.sources import registry as registry_of_sources
from ingest.sources.described import shipped
from ingest.sources.described.description import Description
from ingest.sources.described.source import source_class
from ingest.store.bulk import replay
from ingest.store.bulk.replay import Counts
from ingest.store.search import counts, related
from ingest.store.search.counts import Count, Kind
from ingest.store.search.filters import EVENT_STATES, EventFilter, looked_back_to, narrow, where
from ingest.store.search.named import named_by, resolve
from tests.integration.conftest import Worker
from tests.support.deliver import body, deliver, deliver_together, order
from tests.support.rows import execute
from tests.support.states import give_job, listed
from workers import processors, registry

MakeWorker = Callable[..., Worker]
BUILT_IN = [
    each for each in registry.declared if each.function.__module__.startswith(processors.__name__)
]


def found(engine: Engine, selection: EventFilter) -> set[UUID]:
    """The events of a selection, in both ways."""
    meant = where(selection)
    with engine.connect() as connection:
        statement = text(f"SELECT id FROM events WHERE {meant.sql}")
        at_once = set(connection.execute(statement, meant.parameters).scalars())
    assert {event.id for event in listed(engine, selection)} == at_once
    return at_once


def store(engine: Engine, database_url: str, bodies: Sequence[bytes]) -> list[UUID]:
    """Events that nobody works on."""
    ids = deliver(database_url, bodies)
    execute(engine, ADMIT)
    return ids


ADMIT = (
    "INSERT INTO events SELECT delivery, source, event_id, type, fingerprint, received_at"
    " FROM unadmitted"
)


DATA = [
    '{"n":1250.00}',
    '{"n":1250}',
    '{"n":"1250"}',
    '{"n":"1250.00"}',
    '{"n":125}',
    '{"n":1.250e3}',
    '{"n":true,"m":null}',
    '{"n":"true"}',
    '{"s":"نورة"}',
    '{"s":"\\u0646\\u0648\\u0631\\u0629"}',
    '{"s":"\\u0646\\u0648\\u0631\\u0629 1250"}',
    '{"s":"a/b \\"c\\""}',
    '{"s":"a\\/b \\"c\\""}',
    '{"s":"","items":[{"sku":"A-1"},{"sku":"B_2%"}]}',
    '{"s":"\\u0000","n":1250}',
    '{"s":1e400000,"n":1250}',
    '{"n":"0050"}',
    '{"n":-7.5}',
    '{"s":"a\\\\u0000\\u0000 \\ud800 \\ud83d\\ude00","n":1250}',
    '{"n":1250,"s":1.5}',
]
BODIES = [
    f'{{"id":{number},"event":"x.y","data":{each}}}'.encode() for number, each in enumerate(DATA)
]
BODIES[-1] = b"\xef\xbb\xbf" + BODIES[-1]
REFUSED = {14, 15, 18, 19}
"""What jsonb would refuse."""
FIELDS: list[tuple[str, str, set[int]]] = [
    ("data.n", "1250", {0, 1, 2} | REFUSED),
    ("data.n", "1250.00", {0, 1, 3} | REFUSED),
    ("data.n", "1250.0", {0, 1} | REFUSED),
    ("data.n", "-7.50", {17}),
    ("data.n", "50", set()),
    ("data.n", "0050", {16}),
    ("data.n", "true", {6, 7}),
    ("data.m", "null", set()),
    ("data.n", "12*", {0, 1, 2, 3, 4} | REFUSED),
    ("data.n", "*", {0, 1, 2, 3, 4, 5, 6, 7, 16, 17} | REFUSED),
    ("data.s", "نورة", {8, 9}),
    ("data.s", "نو*", {8, 9, 10}),
    ("data.s", 'a/b "c"', {11, 12}),
    ("data.s", "", {13}),
    ("data.s", "\N{REPLACEMENT CHARACTER}", {14}),
    ("data.s", "a\\u0000\N{REPLACEMENT CHARACTER} \N{REPLACEMENT CHARACTER} 😀", {18}),
    ("data.s", "1.5", {19}),
    ("data.items.1.sku", "B_2%", {13}),
    ("data.items.0.sku", "A_1", set()),
    ("data.items.0.sku", "A_*", set()),
    ("data.N", "1250", set()),
    ("event", "x.y", {*range(len(BODIES))}),
    ("data'; --", "1", set()),
]


def test_a_field_is_found_by_its_value(engine: Engine, database_url: str) -> None:
    ids = store(engine, database_url, BODIES)
    for path, value, numbers in FIELDS:
        expected = {ids[number] for number in numbers}
        assert found(engine, EventFilter(fields=((path, value),))) == expected, (path, value)
    both = EventFilter(fields=(("data.n", "1250"), ("event", "x.*")))
    expected = {ids[number] for number in {0, 1, 2} | REFUSED}
    assert found(engine, both) == expected
    with engine.connect() as connection:
        counted = counts.count(connection, both, budget_s=60)
    assert counted == Count(number=len(expected), kind=Kind.EXACT)


def test_a_text_is_found_however_it_is_spelled(engine: Engine, database_url: str) -> None:
    ids = store(engine, database_url, BODIES)
    for search, numbers in (
        ("نورة", {8, 9, 10}),
        ('a/b "c"', {11, 12}),
        ("X.Y", {*range(len(BODIES))}),  # event ids in any case
        ("SKU", set()),
        (("sku", "A-1"), {13}),
        (("sku", "نورة"), set()),
        ("%", {13}),
        ((), {*range(len(BODIES))}),
    ):
        expected = {ids[number] for number in numbers}
        assert found(engine, EventFilter(search=search)) == expected, search


def test_events_are_named_by_any_of_their_ids(engine: Engine, database_url: str) -> None:
    ids = store(engine, database_url, [order(number) for number in range(5)])
    repeat = UUID(int=7)
    execute(
        engine,
        "INSERT INTO duplicates VALUES (:repeat, :event, now(), false)",
        repeat=repeat,
        event=ids[1],
    )
    named = EventFilter(ids=(ids[0], repeat), event_ids=("order.created:2", "order.created:9"))
    assert found(engine, named) == {ids[0], ids[1], ids[2]}
    assert found(engine, EventFilter(event_ids=("order.created:9",))) == set()


def test_the_events_of_a_delivery_are_found_by_its_id(engine: Engine, database_url: str) -> None:
    """What the page of refusals leads to for a delivery that was acknowledged."""
    whole, elements = deliver_together(database_url, [order(1), order(2)])
    _, others = deliver_together(database_url, [order(3)])
    execute(engine, ADMIT)
    again, repeats = deliver_together(database_url, [order(1), order(4)])
    execute(engine, f"{ADMIT} WHERE event_id = 'order.created:4'")
    execute(
        engine,
        "INSERT INTO duplicates VALUES (:repeat, :event, now(), false)",
        repeat=repeats[0],
        event=elements[0],
    )
    assert found(engine, EventFilter(ids=(whole,))) == set(elements)
    assert found(engine, EventFilter(ids=(again,))) == {elements[0], repeats[1]}
    assert found(engine, EventFilter(ids=(whole, others[0]))) == {*elements, *others}
    assert found(engine, EventFilter(ids=(UUID(int=2**128 - 1),))) == set()
    with engine.connect() as connection:
        assert resolve(connection, [str(whole)]) == tuple(elements)
        assert named_by(connection, str(again)) == (elements[0], repeats[1])


def test_failures_are_found_by_their_error(engine: Engine, database_url: str) -> None:
    ids = store(engine, database_url, [order(number) for number in range(6)])
    for event, state in zip(ids, ("dead", "retrying", "dead", "succeeded", "dead"), strict=False):
        give_job(engine, event, state, "p")
    give_job(engine, ids[0], "succeeded", "q")
    give_job(engine, ids[5], "retrying", "p")  # with the error, and dead without it
    give_job(engine, ids[5], "dead", "q")
    execute(
        engine,
        "INSERT INTO attempts (job, number, trigger, started_at, finished_at, outcome, error_type,"
        " traceback) SELECT id, attempt, 'delivery', now(), now(),"
        " CASE WHEN event = :lost THEN 'lost' ELSE 'failed' END,"
        " CASE WHEN event <> :lost THEN 'E' END, CASE WHEN event <> :lost THEN"
        ' E\'Traceback:\n  File "a.py", line 1\n  File "b.py", line 2, in f\n    f()\' END'
        " FROM jobs WHERE processor = 'p'",
        lost=ids[2],
    )
    execute(engine, "UPDATE jobs SET discarded_at = now() WHERE event = :id", id=ids[4])
    there = '"b.py", line 2, in f'
    for selection, numbers in (
        (EventFilter(error_type="E"), {0, 1, 5}),
        (EventFilter(error_type="E", state="dead"), {0}),
        (EventFilter(error_type="E", state="retrying"), {1}),
        (EventFilter(error_type="E", state="succeeded"), set()),
        (EventFilter(error_type="E", raised_at=there), {0, 1, 5}),
        (EventFilter(error_type="E", raised_at=""), set()),
        (EventFilter(error_type="lost", raised_at=""), {2}),
        (EventFilter(raised_at=there, processor="p"), {0, 1, 5}),
        (EventFilter(error_type="F"), set()),
    ):
        events = {event.id for event in listed(engine, selection)}
        assert events == {ids[number] for number in numbers}, selection
    # The error is that of the processor's own job.
    assert listed(engine, EventFilter(error_type="E", processor="q")) == []
    assert [event.id for event in listed(engine, EventFilter(state="discarded"))] == [ids[4]]


def _story() -> list[tuple[str, dict[str, Any]]]:
    """A customer's, and one of somebody else."""
    return [
        ("contact.created", {"id": 9, "name": "نورة", "phone": "9661"}),
        ("contact.updated", {"id": 9, "name": "N", "updated_at": "2024-01-20T10:00:00Z"}),
        ("conversation.created", {"conversation_id": 1, "contact_id": 9, "phone_number": "9661"}),
        (
            "conversation.updated",
            {"conversation_id": 1, "status": "x", "updated_at": "2024-01-01T00:00:00Z"},
        ),
        (
            "conversation.updated",
            {"conversation_id": 1, "status": "y", "updated_at": "2024-01-02T00:00:00Z"},
        ),
        ("message.received", {"message_id": "w:1", "conversation_id": 1, "from": "9661"}),
        ("message.status.updated", {"message_id": "w:1", "status": "sent"}),
        ("message.status.updated", {"message_id": "w:1", "status": "read"}),
        ("order.created", {"order_id": 5, "conversation_id": 1}),
        (
            "order.status.updated",
            {"order_id": 5, "new_status": "a", "updated_at": "2024-01-01T00:00:00Z"},
        ),
        (
            "order.status.updated",
            {"order_id": 5, "new_status": "b", "updated_at": "2024-01-02T00:00:00Z"},
        ),
        ("message.received", {"message_id": "w2", "conversation_id": 2, "from": "9661"}),
        ("order.created", {"order_id": 6, "conversation_id": 1, "total": "1e400000"}),  # dead
        ("survey.answered", {"conversation_id": 1, "id": 9}),  # unhandled
        ("message.received", {"message_id": "w3", "conversation_id": 3, "from": "9662"}),
        ("order.created", {"order_id": 1, "conversation_id": 3}),
        ("contact.created", {"id": 1, "phone": "9663"}),
    ]


CONVERSATION = {2, 4, 5, 6, 7, 8, 9, 10, 12, 13}
CUSTOMER = CONVERSATION - {12, 13} | {0, 1}
CONCERNED: list[tuple[str, str, set[int]]] = [
    ("conversation", "1", CONVERSATION),  # but for what the read model has forgotten
    ("order", "5", {8, 9, 10}),
    ("order", "6", {12}),
    ("message", "w:1", {5, 6, 7}),
    ("message", "w", set()),
    ("contact", "9", CUSTOMER),
    ("contact", "1", {16}),
    ("phone", "9661", CUSTOMER | {11}),
    ("phone", "9662", {14, 15}),
    ("phone", "9664", set()),
    ("order", "no number", set()),
    ("order", str(2**63), set()),
]


def test_events_are_found_by_what_they_concern(
    engine: Engine, database_url: str, make_worker: MakeWorker, declared: list[Any]
) -> None:
    declared.extend(BUILT_IN)
    story = _story()
    ids = deliver(database_url, [body(kind, data) for kind, data in story])
    make_worker().process(ids)
    for kind, value, numbers in CONCERNED:
        expected = {ids[number] for number in numbers}
        assert found(engine, EventFilter(about=((kind, value),))) == expected, (kind, value)
        with engine.connect() as connection:
            narrowed = narrow(connection, EventFilter(about=((kind, value),)))
        assert not narrowed.about
        assert found(engine, narrowed) == expected
    both = EventFilter(about=(("order", "5"), ("conversation", "1")), types=("*.created",))
    assert found(engine, both) == {ids[8]}
    by_field = EventFilter(fields=(("data.conversation_id", "1"),))
    assert ids[3] in found(engine, by_field)


PHONE = "966511110001"
SPELLED = [
    PHONE,
    "+966511110001",
    "00966 51-111-0001",
    "(966) 51 111 0001",
    "\u202a+966\u00a051\u2011111\u20110001\u202c",
    "".join(chr(0x0660 + int(digit)) for digit in PHONE),
    "".join(chr(0x06F0 + int(digit)) for digit in PHONE),
]


def _of_phones(phones: Sequence[Any]) -> list[bytes]:
    """For each a message, a conversation and a contact that have it."""
    return [
        each
        for number, phone in enumerate(phones)
        for each in (
            body("message.received", {"message_id": f"w{number}", "from": phone}),
            body("conversation.created", {"conversation_id": number, "phone_number": phone}),
            body("contact.created", {"id": number, "phone": phone}),
        )
    ]


@pytest.mark.parametrize("is_worked_on", [True, False])
def test_a_phone_number_is_found_however_it_is_written(
    engine: Engine,
    database_url: str,
    make_worker: MakeWorker,
    declared: list[Any],
    is_worked_on: bool,
) -> None:
    same, others = [*SPELLED, int(PHONE)], ["966511110002", "SA.abc", "US.134912"]
    bodies = _of_phones([*same, *others])
    if is_worked_on:
        declared.extend(BUILT_IN)
        ids = deliver(database_url, bodies)
        make_worker().process(ids)
    else:
        ids = store(engine, database_url, bodies)
    for given in SPELLED:
        expected = set(ids[: 3 * len(same)])
        assert found(engine, EventFilter(about=(("phone", given),))) == expected, given
    for number, given in enumerate(others, len(same)):
        expected = set(ids[3 * number : 3 * number + 3])
        assert found(engine, EventFilter(about=(("phone", given),))) == expected, given
    assert found(engine, EventFilter(about=(("phone", "134912"),))) == set()


@pytest.fixture
def shop() -> Iterator[None]:
    """A described sender, of whose events no read model is made."""
    described = shipped.table("standard-webhooks") | {
        "entities": {"order": ["data.number"], "contact": ["data.buyer"], "phone": ["data.tel"]},
        "persons": ["data.mail"],
    }
    registry_of_sources.use({"shop": source_class("shop", Description.model_validate(described))})
    yield
    registry_of_sources.use({})


@pytest.mark.usefixtures("shop")
def test_handled_events_of_a_described_sender_are_found_among_the_newest(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bought = {"number": "A-7", "buyer": "cus_9", "tel": "+966 51 111 0001", "mail": "x@y.example"}
    ids = store(engine, database_url, [body("order.paid", bought | {"at": n}) for n in range(6)])
    execute(engine, "UPDATE events SET source = 'shop' WHERE id <> :other", other=ids[5])
    for event in ids:
        give_job(engine, event, "succeeded", "p")
    execute(engine, "DELETE FROM unhandled")
    asked = (("order", "A-7"), ("contact", "cus_9"), ("contact", "x@y.example"), ("phone", PHONE))
    for about in asked:
        assert found(engine, EventFilter(about=(about,))) == set(ids[:5]), about
    assert found(engine, EventFilter(about=(("order", "A-8"),))) == set()
    buyer = EventFilter(about=(("contact", "cus_9"),))
    assert looked_back(engine, buyer) is None
    monkeypatch.setattr(related, "NEWEST_LOOKED_THROUGH", 3)
    assert found(engine, buyer) == {ids[3], ids[4]}
    moment = looked_back(engine, buyer)
    assert moment == received_at(ids[2])
    before = dataclasses.replace(buyer, until=moment + timedelta(milliseconds=1))
    assert found(engine, before) == set(ids[:3])
    assert looked_back(engine, before) is None
    assert looked_back(engine, EventFilter(about=(("message", "m"),))) is None


def looked_back(engine: Engine, selection: EventFilter) -> datetime | None:
    with engine.connect() as connection:
        return looked_back_to(connection, selection)


def test_what_waits_is_found_by_what_it_concerns(engine: Engine, database_url: str) -> None:
    ids = store(engine, database_url, [body(kind, data) for kind, data in _story()])
    for event in ids[:4]:
        give_job(engine, event, "pending", "p")
    for event in ids[4:8]:
        give_job(engine, event, "running", "p")
    execute(engine, "DELETE FROM unhandled WHERE event IN (SELECT event FROM jobs)")
    expected = {ids[number] for number in (2, 3, 4, 5, 8, 12, 13)}
    assert found(engine, EventFilter(about=(("conversation", "1"),))) == expected


def test_a_replay_and_a_list_mean_the_same(engine: Engine, database_url: str) -> None:
    ids = store(
        engine, database_url, [order(number, conversation_id=number % 2) for number in range(6)]
    )
    for event in ids:
        give_job(engine, event, "dead", "p")
    execute(engine, "DELETE FROM unhandled")
    with engine.connect() as connection:
        for selection in (
            EventFilter(about=(("conversation", "1"),)),
            EventFilter(fields=(("data.conversation_id", "1"),)),
            EventFilter(search='"conversation_id": 1'),
        ):
            assert replay.count(connection, selection) == Counts(jobs=3), selection
            asked = json.dumps(dataclasses.asdict(selection), default=str)
            assert EventFilter.from_json(json.loads(asked)) == selection


# The state of an event is the first of these that one of its jobs is in.
URGENCY = ("dead", "retrying", "running", "pending", "discarded", "succeeded")
JOB_STATES = (None, *URGENCY)


@pytest.fixture
def pairs(engine: Engine, database_url: str) -> dict[UUID, dict[str, str]]:
    """Events whose two processors' jobs, or none, are in all pairs of states."""
    states = list(itertools.product(JOB_STATES, repeat=2))
    ids = store(engine, database_url, [order(number) for number in range(len(states))])
    stored = {}
    for event, pair in zip(ids, states, strict=True):
        stored[event] = {name: each for name, each in zip("pq", pair, strict=True) if each}
        for name, state in stored[event].items():
            give_job(engine, event, "dead" if state == "discarded" else state, name)
            if state == "discarded":
                execute(
                    engine,
                    "UPDATE jobs SET discarded_at = now() WHERE event = :id AND processor = :name",
                    id=event,
                    name=name,
                )
    execute(engine, "DELETE FROM unhandled WHERE event IN (SELECT event FROM jobs)")
    return stored


@pytest.mark.parametrize("processor", [None, "p", "q", "none"])
@pytest.mark.parametrize("state", EVENT_STATES)
def test_what_is_listed_in_a_state_is_what_is_replayed_and_discarded(
    engine: Engine, pairs: dict[UUID, dict[str, str]], state: str, processor: str | None
) -> None:
    """In that state as far as the processor goes, where one is named."""
    selection = EventFilter(state=state, processor=processor)
    expected, jobs = {}, 0
    for event, states in pairs.items():
        asked = [each for name, each in states.items() if processor in (None, name)]
        if next((each for each in URGENCY if each in asked), "unhandled") == state:
            expected[event] = state
            jobs += asked.count(state)
    assert {each.id: each.state for each in listed(engine, selection)} == expected
    with engine.connect() as connection:
        assert counts.count(connection, selection).number == len(expected)
        to_replay = replay.count(connection, selection)
        to_discard = replay.count(connection, selection, action=replay.DISCARD)
    assert to_replay == Counts(
        jobs=0 if state == "running" else jobs,
        running=jobs if state == "running" else 0,
        events=len(expected) if state == "unhandled" else 0,
    )
    assert to_discard.jobs == (jobs if state in ("pending", "retrying", "dead") else 0)


def test_what_a_replay_has_put_back_already_does_not_keep_it_from_the_rest(
    engine: Engine, pairs: dict[UUID, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first job of an event that succeeded makes it a pending one."""
    monkeypatch.setattr(replay, "BATCH", 1)
    execute(engine, "UPDATE jobs SET started_at = finished_at")
    both = [event for event, states in pairs.items() if list(states.values()) == ["succeeded"] * 2]
    steps = replay.run(
        engine, EventFilter(state="succeeded"), requested_by="sara", reason=None, rate=None
    )
    assert list(steps)[-1].jobs == 2 * len(both) + 2  # and those of one processor only
    pending = {each.id for each in listed(engine, EventFilter(state="pending"))}
    assert set(both) <= pending
