"""What pages count for a moment only says so, and what they follow to a bound only, too."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine

from ingest.cli.output import LEFT_OUT
from ingest.console.app import create_app
from ingest.console.services import event_query
from ingest.entities import timeline
from ingest.entities.entity import Entity
from ingest.entities.timeline import Place
from ingest.settings import Settings
from ingest.store.pipeline import jobs, unfinished
from ingest.store.reports import failures, rejected
from ingest.store.reports.rejected import RejectedFilter
from ingest.store.search.counts import Kind
from ingest.store.search.filters import EventFilter
from ingest.store.search.related import FOLLOWED, LOOKED_THROUGH, is_cut
from tests.support.asgi import Browser, running
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
        FROM generate_series(CAST(:first AS integer), :count) AS n
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


_FAILED = """
    WITH made AS (
        INSERT INTO jobs (event, processor, queue, state, trigger, attempt, failures, max_attempts,
                          finished_at)
        SELECT (lpad(to_hex(1700000000000 + n), 12, '0') || '70008000000000000000')::uuid, 'a',
               'events', 'dead', 'delivery', 1, 1, 1, now()
        FROM generate_series(1, :count) AS n
        RETURNING id, event
    )
    INSERT INTO attempts (job, number, trigger, worker, started_at, finished_at, outcome,
                          error_type, error_message, place)
    SELECT id, 1, 'delivery', 'w', now(), now() - interval '1 min', 'failed',
           CASE row_number() OVER (ORDER BY event) % 3 WHEN 0 THEN 'KeyError' ELSE 'OSError' END,
           'it was ' || row_number() OVER (ORDER BY event), 'shop.crm:call'
    FROM made
"""
_REJECTED = """
    INSERT INTO deliveries (id, source, received_at, key_id, headers, body, rejected)
    SELECT (lpad(to_hex(1700000000000 + n), 12, '0') || '70008000000000000000')::uuid, 'awalchat',
           to_timestamp(1700000000 + n / 1000.0), 'k', '[]', '{}',
           CASE n % 3 WHEN 0 THEN 'not_json' ELSE 'data_not_object' END
    FROM generate_series(1, :count) AS n
"""


def test_failing_jobs_are_grouped_for_as_long_as_there_is_time(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = 3 * failures.FIRST
    execute(engine, _FAILED, count=many)

    def grouped(budget_s: float) -> tuple[dict[str, int], bool, set[str | None], int]:
        monkeypatch.setattr(failures, "BUDGET_S", budget_s)
        monkeypatch.setattr(failures, "EVENTS_BUDGET_S", budget_s)
        with engine.connect() as connection:
            found = failures.groups(connection, now=datetime.now(UTC))
            newest = failures.events(connection, "a", "OSError", "shop.crm:call", limit=many)
        trends = [sum(group.trend) for group in found.groups]
        assert trends == [group.jobs for group in found.groups]
        assert sorted(newest, reverse=True) == newest
        jobs = {group.error_type: group.jobs for group in found.groups}
        return jobs, found.is_whole, {group.message for group in found.groups}, len(newest)

    last = {f"it was {many}", f"it was {many - 1}"}
    everything = {"OSError": 2 * failures.FIRST, "KeyError": failures.FIRST}
    assert grouped(600.0) == (everything, True, last, 2 * failures.FIRST)
    jobs, is_whole, messages, newest = grouped(0.0)
    assert (sum(jobs.values()), is_whole, messages) == (failures.FIRST, False, last)
    assert newest == jobs["OSError"]


_SNOOZED_BEFORE_FAILING = """
    WITH made AS (
        INSERT INTO jobs (event, processor, queue, state, trigger, attempt, failures, max_attempts,
                          next_attempt_at, hinted_until)
        SELECT gen_random_uuid(), 'a', CASE WHEN n <= :snoozed THEN 'bulk' ELSE 'events' END,
               'retrying', 'delivery', 1, 0, 8, now() + n * interval '1 s', now()
        FROM generate_series(1, :snoozed + :failing) AS n
        RETURNING id, queue
    )
    INSERT INTO attempts (job, number, trigger, worker, started_at, finished_at, outcome,
                          error_type, place)
    SELECT id, 1, 'delivery', 'w', now(), now(),
           CASE queue WHEN 'bulk' THEN 'snoozed' ELSE 'failed' END,
           CASE queue WHEN 'events' THEN 'KeyError' END, 'shop.crm:call'
    FROM made
"""


@pytest.mark.parametrize(
    ("budget_s", "failing", "is_whole"), [(0.0, {}, False), (600.0, {"KeyError": 7}, True)]
)
def test_failing_jobs_behind_snoozed_ones_are_grouped_or_said_to_be_left_out(
    engine: Engine,
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    budget_s: float,
    failing: dict[str, int],
    is_whole: bool,
) -> None:
    execute(engine, _SNOOZED_BEFORE_FAILING, snoozed=failures.FIRST + 1, failing=7)
    monkeypatch.setattr(failures, "BUDGET_S", budget_s)
    with engine.connect() as connection:
        found = failures.groups(connection, now=datetime.now(UTC))
    assert {group.error_type: group.jobs for group in found.groups} == failing
    assert found.is_whole is is_whole
    app = create_app(make_settings())
    with running(app):
        shown = Browser(app=app).get("/failures")
    assert ("KeyError" in shown.text) is is_whole
    assert ("There was no time to look at every job." in shown.text) is not is_whole
    assert "Nothing fails" not in shown.text


def test_rejected_deliveries_are_looked_at_for_as_long_as_there_is_time(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = 3 * rejected.FIRST
    execute(engine, _REJECTED, count=many)

    def totals(budget_s: float) -> list[tuple[str, int, bool]]:
        monkeypatch.setattr(rejected, "BUDGET_S", budget_s)
        with engine.connect() as connection:
            found = rejected.by_reason(connection, RejectedFilter())
        return [(total.reason, total.deliveries, total.is_least) for total in found]

    assert totals(600.0) == [
        ("data_not_object", 2 * rejected.FIRST, False),
        ("not_json", rejected.FIRST, False),
    ]
    counted = totals(0.0)
    assert sum(deliveries for _, deliveries, _ in counted) == rejected.FIRST
    assert all(is_least for _, _, is_least in counted)


@pytest.mark.parametrize("budget_s", [0.0, 600.0])
def test_pages_of_rejected_deliveries_lead_to_all_of_them(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, budget_s: float
) -> None:
    monkeypatch.setattr(rejected, "BUDGET_S", budget_s)
    many = 5 * rejected.FIRST // 2
    execute(engine, _REJECTED, count=many)
    for wanted, number in (
        (RejectedFilter(), many),
        (RejectedFilter(reason="not_json"), many // 3),
        (RejectedFilter(source="none"), 0),
    ):
        listed, before = [], None
        while True:
            with engine.connect() as connection:
                page = rejected.newest(connection, wanted, limit=40, before=before)
            listed += [delivery.id for delivery in page.deliveries]
            before = page.older
            if before is None:
                break
        assert len(set(listed)) == number
        assert listed == sorted(listed, reverse=True)


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


OF_EACH_STATE = {
    "dead": ("state, finished_at", "'dead', now()"),
    "discarded": ("state, finished_at, discarded_at", "'dead', now(), now()"),
    "waiting": ("state, next_attempt_at", "'pending', now()"),
    "running": ("state, lease_until", "'running', now()"),
}


def leave(engine: Engine, state: str, count: int) -> None:
    """Events that were not worked on."""
    if state == "unhandled":
        sql = "INSERT INTO unhandled (event) SELECT gen_random_uuid()"
    else:
        columns, values = OF_EACH_STATE[state]
        sql = (
            f"INSERT INTO jobs (event, processor, queue, trigger, attempt, failures, max_attempts,"
            f" {columns}) SELECT gen_random_uuid(), 'p', 'events', 'delivery', 1, 1, 1, {values}"
        )
    execute(engine, f"{sql} FROM generate_series(1, :count)", count=count)


@pytest.mark.parametrize("state", [*OF_EACH_STATE, "unhandled"])
def test_what_is_not_looked_through_of_unfinished_events_is_told(
    engine: Engine, state: str
) -> None:
    about = Entity(kind="message", value="m")
    leave(engine, state, LOOKED_THROUGH)
    with engine.connect() as connection:
        assert not timeline.read(connection, {}, about, Place()).leaves_unfinished
    leave(engine, state, 1)
    with engine.connect() as connection:
        assert timeline.read(connection, {}, about, Place()).leaves_unfinished
    found = event_query.find(engine, EventFilter(about=(("message", "m"),)), sources={}, limit=5)
    assert (found.leaves_unfinished, found.count.kind) == (True, Kind.AT_LEAST)
    assert not event_query.find(engine, EventFilter(), sources={}, limit=5).leaves_unfinished


def test_pages_and_api_say_so_and_a_list_is_not_read_to_its_end(
    engine: Engine, make_settings: Callable[..., Settings]
) -> None:
    console = create_app(make_settings())
    about = "/entities/order/790"
    with running(console):
        browser = Browser(app=console)
        for path in (about, "/events?q=order:790"):
            assert LEFT_OUT not in browser.get(path).text, path
        assert "Read to the end." in browser.get("/events?q=order:790").text
        assert browser.get(f"/api/v1{about}").json()["leaves_unfinished"] is False
        leave(engine, "dead", LOOKED_THROUGH + 1)
        for path in (about, "/events?q=order:790"):
            assert LEFT_OUT in browser.get(path).text, path
        assert "Read to the end." not in browser.get("/events?q=order:790").text
        assert browser.get(f"/api/v1{about}").json()["leaves_unfinished"] is True
