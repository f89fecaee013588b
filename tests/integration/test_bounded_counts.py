"""What pages count for a moment only says so, and what they follow to a bound only, too."""

import pytest
from sqlalchemy import Engine

from ingest.entities import timeline
from ingest.entities.entity import Entity
from ingest.entities.timeline import Place
from ingest.store.pipeline import jobs, unfinished
from ingest.store.search.related import FOLLOWED, is_cut
from tests.support.rows import execute

DEAD, WAITING = 1_200, 700
_DEAD = """
    INSERT INTO jobs (event, processor, queue, state, trigger, attempt, failures, max_attempts,
                      finished_at)
    SELECT gen_random_uuid(), CASE n % 3 WHEN 0 THEN 'a' ELSE 'b' END, 'events', 'dead',
           'delivery', 1, 1, 1, now()
    FROM generate_series(1, :count) AS n
"""
_WAITING = """
    INSERT INTO jobs (event, processor, queue, state, trigger, attempt, failures, max_attempts,
                      next_attempt_at, hinted_until)
    SELECT gen_random_uuid(), 'a', CASE n % 2 WHEN 0 THEN 'events' ELSE 'replay' END, 'pending',
           'delivery', 0, 0, 1, now(), 'infinity'
    FROM generate_series(1, :count) AS n
"""
_TALK = """
    WITH said AS (
        SELECT n, (lpad(to_hex(n + 1700000000000), 12, '0') || '70008000000000000000')::uuid AS id,
               'message.received:m' || n AS name
        FROM generate_series(:first, :count) AS n
    ), known AS (
        INSERT INTO events (id, source, event_id, type, fingerprint, received_at)
        SELECT id, 'awalchat', name, 'message.received', '-', now() FROM said
    )
    INSERT INTO messages (message_id, conversation_id, from_number, received_event_id,
                          last_event_id)
    SELECT 'm' || n, :conversation, '966500000000', name, name FROM said ORDER BY n
"""


def talk(engine: Engine, count: int, *, first: int = 1, conversation: int = 7) -> None:
    """Messages, with their events, from number `first` to number `count`."""
    execute(engine, _TALK, count=count, first=first, conversation=conversation)


@pytest.fixture
def unfinished_jobs(engine: Engine) -> Engine:
    """Jobs that are dead and jobs that are parked."""
    execute(engine, _DEAD, count=DEAD)
    execute(engine, _WAITING, count=WAITING)
    return engine


def test_with_time_enough_all_unfinished_jobs_are_counted(
    unfinished_jobs: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "BUDGET_S", 600.0)
    with unfinished_jobs.connect() as connection:
        counted = unfinished.read(connection)
    assert not counted.at_least
    assert counted.of("a") == {"pending": WAITING, "retrying": 0, "running": 0, "dead": DEAD // 3}
    assert counted.of("b")["dead"] == DEAD - DEAD // 3


def test_when_the_time_is_up_the_counts_are_lower_bounds_and_say_so(
    unfinished_jobs: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "BUDGET_S", 0.0)
    with unfinished_jobs.connect() as connection:
        counted = unfinished.read(connection)
        together = unfinished.together(connection, counted)
    assert counted.at_least == {"dead", "pending", "retrying"}
    assert 0 < counted.total("dead") < DEAD
    assert 0 < together.pending < WAITING
    assert (together.dead, together.at_least) == (DEAD, ("pending", "retrying"))


def test_parked_jobs_are_counted_to_a_bound_in_each_lane(unfinished_jobs: Engine) -> None:
    with unfinished_jobs.connect() as connection:
        every = jobs.parked(connection)
        some = jobs.parked(connection, at_most=100)
    half = WAITING // 2
    assert {(lane.queue, lane.jobs) for lane in every} == {("events", half), ("replay", half)}
    assert not any(lane.is_least for lane in every)
    assert [(lane.jobs, lane.is_least) for lane in some] == [(100, True), (100, True)]


@pytest.mark.parametrize(("kind", "value"), [("conversation", "7"), ("phone", "966500000000")])
def test_of_a_great_many_messages_the_newest_are_followed(
    engine: Engine, kind: str, value: str
) -> None:
    said = FOLLOWED + 50
    talk(engine, said)
    with engine.connect() as connection:
        shown = timeline.read(connection, {}, Entity(kind=kind, value=value), Place(limit=500))
    assert shown.is_cut
    names = [entry.event.event_id for entry in shown.entries]
    assert names == [f"message.received:m{n}" for n in range(said, said - FOLLOWED, -1)]


@pytest.mark.parametrize("kind", ["contact", "phone"])
def test_of_several_conversations_the_newest_messages_of_all_are_followed(
    engine: Engine, kind: str
) -> None:
    execute(
        engine,
        "INSERT INTO conversations (conversation_id, contact_id, phone_number, last_event_id)"
        " SELECT id, 9, '966500000001', 'e' FROM unnest(ARRAY[7, 8, 6]) AS id",
    )
    said, last = FOLLOWED + 50, FOLLOWED + 80
    talk(engine, said)
    talk(engine, said + 20, first=said + 1, conversation=8)
    talk(engine, last, first=said + 21, conversation=6)
    about = Entity(kind=kind, value={"contact": "9", "phone": "966500000001"}[kind])
    with engine.connect() as connection:
        shown = timeline.read(connection, {}, about, Place(limit=500))
    assert shown.is_cut
    names = [entry.event.event_id for entry in shown.entries]
    assert names == [f"message.received:m{n}" for n in range(last, last - FOLLOWED, -1)]


def test_a_conversation_with_fewer_messages_is_followed_whole(engine: Engine) -> None:
    talk(engine, FOLLOWED - 1)
    with engine.connect() as connection:
        assert not is_cut(connection, "conversation", "7")
        shown = timeline.read(connection, {}, Entity(kind="conversation", value="7"), Place())
    assert shown.total == FOLLOWED - 1
