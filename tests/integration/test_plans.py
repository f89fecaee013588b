"""With many events, lists and counts go by indexes: no plan reads a table from end to end."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Connection, Engine, event

from ingest.console.services import overview
from ingest.console.services.health import UNKNOWN_REDIS
from ingest.console.services.ranges import Range
from ingest.query import spell
from ingest.store import partitions
from ingest.store.address import parse
from ingest.store.bulk import replay
from ingest.store.engine import Role, create_engine
from ingest.store.pipeline import metrics, processors
from ingest.store.reports import (
    audit_log,
    event_detail,
    failures,
    refusal_counts,
    refused_requests,
    rejected,
)
from ingest.store.reports.refusal_counts import RefusalFilter
from ingest.store.reports.rejected import RejectedFilter
from ingest.store.retention import events as events_of_retention
from ingest.store.retention import obstacles, progress, records
from ingest.store.retention.events import Age
from ingest.store.search import counts, events, scan
from ingest.store.search.filters import EVENT_STATES, EventFilter
from tests.conftest import Servers, cloned

COUNT = 50_000
# A twentieth of a second apart. One of 1,000 is dead, another waits, one of 5,000 has no processor.
SEED = """
    WITH seeded AS MATERIALIZED (
        SELECT i, (lpad(to_hex(%(begin)s + i * 50), 12, '0') || '7' || substr(hash, 1, 3) || '8'
                   || substr(hash, 4, 15))::uuid AS id, i %% 1000 AS conversation,
               CASE WHEN i %% 5000 = 7 THEN 'tag.added' WHEN i %% 100 = 0 THEN 'order.created'
                    WHEN i %% 2 = 0 THEN 'message.status.updated' ELSE 'message.received'
               END AS type
        FROM (SELECT i, md5(i::text) AS hash
              FROM generate_series(0, %(count)s - 1) AS i) AS numbered
    ), sent AS (
        INSERT INTO deliveries (id, source, received_at, key_id, headers, body)
        SELECT id, 'awalchat', now(), '-', '[]', convert_to('{"data":{"conversation_id":'
               || conversation || ',"note":"' || repeat('.', 200) || '"}}', 'UTF8') FROM seeded
    ), known AS (
        INSERT INTO events SELECT id, 'awalchat', type || ':' || i, type, '-', now() FROM seeded
    ), worked AS (
        INSERT INTO jobs (event, processor, queue, state, trigger, attempt, failures, max_attempts,
                          finished_at, next_attempt_at)
        SELECT id, CASE type WHEN 'order.created' THEN 'orders' ELSE 'messages' END, 'events',
               state, 'delivery', 1, 0, 3, CASE WHEN state <> 'pending' THEN now() END,
               CASE WHEN state = 'pending' THEN now() END
        FROM (SELECT *, CASE i %% 1000 WHEN 1 THEN 'dead' WHEN 2 THEN 'pending' ELSE 'succeeded' END
                        AS state FROM seeded WHERE type <> 'tag.added') AS stated
        RETURNING id, state
    ), failed AS (
        INSERT INTO attempts (job, number, trigger, started_at, finished_at, outcome, error_type)
        SELECT id, 1, 'delivery', now(), now(), 'failed', 'E' FROM worked WHERE state = 'dead'
    ), lacking AS (
        INSERT INTO unhandled SELECT id FROM seeded WHERE type = 'tag.added'
    ), written AS (
        INSERT INTO messages (message_id, conversation_id, from_number, received_event_id,
                              last_event_id)
        SELECT i, conversation, '9665' || conversation, type || ':' || i, type || ':' || i
        FROM seeded WHERE type = 'message.received'
    )
    INSERT INTO orders (order_id, conversation_id, created_event_id, last_event_id)
    SELECT i, conversation, type || ':' || i, type || ':' || i
    FROM seeded WHERE type = 'order.created'
"""
# Half of the jobs were replayed, all by one operation.
REPLAYED = """
    WITH begun AS (INSERT INTO replays (requested_by, selection, status, jobs, last_job)
                   VALUES ('sara', '{}', 'finished', 25000, 1000000) RETURNING id)
    UPDATE jobs SET replay = begun.id FROM begun WHERE jobs.id % 2 = 0
"""
LARGE = {"events", "jobs", "deliveries", "messages"}


@pytest.fixture(scope="module")
def seeded(servers: Servers, template: str) -> Iterator[Engine]:
    """A database with many events, its statistics up to date."""
    with cloned(servers, template) as url:
        begin = int((datetime.now(UTC) - timedelta(seconds=COUNT / 20)).timestamp() * 1000)
        with psycopg.connect(servers.as_administrator(url), autocommit=True) as connection:
            connection.execute("SET session_replication_role = replica")
            connection.execute(sql.SQL(SEED), {"begin": begin, "count": COUNT})
            connection.execute(REPLAYED)
            connection.execute("VACUUM (ANALYZE)")
        engine = create_engine(parse(url), role=Role.OPERATOR)
        yield engine
        engine.dispose()


def selections(connection: Connection) -> Iterator[EventFilter]:
    """Everything that a list may be narrowed by, but for what is in bodies."""
    newest = events.page(connection, EventFilter(), limit=1).events[0]
    moment = newest.received_at - timedelta(hours=1)
    yield from (EventFilter(), EventFilter(since=moment), EventFilter(until=moment))
    for type_ in ("message.received", "order.*", "tag.added", "none", "*"):
        yield EventFilter(types=(type_,))
        yield EventFilter(types=(type_,), state="dead", since=moment)
        yield EventFilter(types=(type_,), state="succeeded", processor="orders")
    yield from (EventFilter(state=state) for state in EVENT_STATES)
    yield from (EventFilter(processor=name) for name in ("messages", "orders", "none"))
    yield from (EventFilter(source=name) for name in ("awalchat", "other"))
    yield EventFilter(ids=(newest.id, UUID(int=1)), event_ids=("order.created:100",))
    yield from (EventFilter(replay=1), EventFilter(replay=1, state="dead", processor="orders"))
    yield EventFilter(taken_back=1)
    for kind, value in (
        ("conversation", "7"),
        ("order", "100"),
        ("message", "1"),
        ("contact", "7"),
        ("phone", "96657"),
    ):
        yield EventFilter(about=((kind, value),))
        yield EventFilter(about=((kind, value),), state="dead")
    yield EventFilter(error_type="E")
    for mark in ("duplicate", "conflict"):
        yield EventFilter(marks=(mark,))
        yield EventFilter(marks=(mark,), types=("order.*",), state="dead")
    yield EventFilter(deliveries=((">", 2),))
    yield EventFilter(deliveries=(("=", 1),))
    for alone in (
        EventFilter(types=("message.*",)),
        EventFilter(source="awalchat"),
        EventFilter(state="succeeded"),
        EventFilter(processor="messages"),
        EventFilter(error_type="E"),
        EventFilter(key_id="-"),
        EventFilter(marks=("duplicate",)),
    ):
        yield EventFilter(excluded=(alone,))
        yield EventFilter(excluded=(alone,), state="dead")


def test_no_list_and_no_count_reads_a_whole_table(
    seeded: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Slices grow with the machine's speed; one of most of this small table is best read from end
    # to end.
    monkeypatch.setattr(scan, "_LARGEST_SLICE", COUNT // 10)
    with seeded.connect() as connection:
        for selection in list(selections(connection)):
            for run in (_pages(selection), _count(selection)):
                for statement, values in _statements(connection, run):
                    scanned = set(_scanned(_plan(connection, statement, values)))
                    assert not scanned, f"{spell(selection)!r} {scanned}: {statement} {values}"


def reads(event: UUID) -> Iterator[Callable[[Connection], object]]:
    """What the console's other pages read."""
    now = datetime.now(UTC)
    for period in Range:
        yield partial(overview.read, period=period, redis=UNKNOWN_REDIS, now=now)
    yield partial(event_detail.of_event, event=event)
    yield partial(failures.groups, now=now)
    yield failures.rejected
    yield refused_requests.newest
    everything = RefusalFilter(since=now - timedelta(days=7), until=now)
    yield partial(refusal_counts.newest, wanted=everything, limit=50)
    yield partial(refusal_counts.of_moment, request=event, at=now, limit=20)
    for narrowed in (
        RejectedFilter(),
        RejectedFilter(source="none", since=now - timedelta(days=7)),
    ):
        yield partial(rejected.newest, wanted=narrowed, limit=50)
        yield partial(rejected.by_reason, wanted=narrowed)
    yield processors.all_of_them
    yield partial(metrics.by_label, what="succeeded", since=now - timedelta(hours=1))
    yield partial(audit_log.newest, limit=50)
    yield partial(replay.operations, limit=50)
    yield partial(replay.numbered, numbers=[1, 2])
    yield partial(replay.operation, identity=1)
    for action in (replay.REPLAY, replay.DISCARD):
        yield partial(replay.count, selection=EventFilter(state="dead"), action=action)
        yield partial(replay.by_processor, selection=EventFilter(state="dead"), action=action)


def test_no_page_of_the_console_reads_a_whole_table(seeded: Engine) -> None:
    with seeded.connect() as connection:
        (newest,) = events.page(connection, EventFilter(), limit=1).events
        for run in reads(newest.id):
            for statement, values in _statements(connection, run):
                scanned = set(_scanned(_plan(connection, statement, values)))
                assert not scanned, statement


def _pages(selection: EventFilter) -> Callable[[Connection], object]:
    def run(connection: Connection) -> None:
        page = events.page(connection, selection, limit=50, budget_s=60)
        if page.events:
            events.page(connection, selection, limit=50, before=page.events[-1].id)
            events.page(connection, selection, limit=50, after=page.events[-1].id)

    return run


def _count(selection: EventFilter) -> Callable[[Connection], object]:
    return lambda connection: counts.count(connection, selection, budget_s=60)


def _statements(
    connection: Connection, run: Callable[[Connection], object]
) -> list[tuple[str, Any]]:
    """What a function asks the database."""
    asked: list[tuple[str, Any]] = []

    def note(*given: Any) -> None:
        asked.append((given[2], given[3]))

    event.listen(connection, "before_cursor_execute", note)
    run(connection)
    event.remove(connection, "before_cursor_execute", note)
    of_cursors = ("FETCH", "CLOSE", "EXPLAIN")
    return [
        (statement.partition("CURSOR FOR ")[2] or statement, values)
        for statement, values in asked
        if not statement.startswith(of_cursors)
    ]


def _plan(connection: Connection, statement: str, values: Any) -> dict[str, Any]:
    explained = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", values)
    plan: dict[str, Any] = explained.scalar_one()[0]["Plan"]
    return plan


def _scanned(plan: dict[str, Any]) -> Iterator[str]:
    """The large tables that a plan reads from end to end."""
    table = plan.get("Relation Name", "")
    is_empty = table.startswith("deliveries_") and plan["Total Cost"] < 1
    if plan["Node Type"] == "Seq Scan" and table.partition("_")[0] in LARGE and not is_empty:
        yield table
    for part in plan.get("Plans", ()):
        yield from _scanned(part)


def test_the_removal_reads_no_whole_table(seeded: Engine) -> None:
    before = datetime.now(UTC)
    age = Age(before=before, remember_since=date.min)

    def remove(connection: Connection) -> None:
        obstacles.refuse_older_code(connection)
        connection.exec_driver_sql("UPDATE ingest.retention SET closed_at = now() - interval '1 h'")
        for _ in range(3):
            since = progress.position(connection, "events")
            events_of_retention.step(connection, age, since=since, limit=500)
        records.remove_duplicates(connection, before=before, limit=500)

    with seeded.connect() as connection:
        asked = _statements(connection, remove)
        scanned = {
            table
            for statement, values in asked
            if not statement.lstrip().startswith("UPDATE")
            for table in _scanned(_plan(connection, statement, values))
        }
        removed = connection.exec_driver_sql("SELECT removed FROM ingest.retention").scalar()
        connection.rollback()
    assert not scanned
    assert removed


def test_a_days_unfinished_jobs_are_counted_without_a_look_at_the_finished(
    seeded: Engine,
) -> None:
    """At 1,000 events a second a day has 86 million, and receivers wait for the second count."""
    with seeded.connect() as connection:
        (newest,) = events.page(connection, EventFilter(), limit=1).events
        drop = partial(partitions.drop, day=newest.received_at.date())
        counting, *_ = _statements(connection, drop)
        connection.rollback()
        plan = json.dumps(_plan(connection, *counting))
    assert set(re.findall(r'"Index Name": "(jobs_\w+)"', plan)) == {"jobs_due", "jobs_leased"}


def test_a_whole_table_that_is_read_is_noticed(seeded: Engine) -> None:
    with seeded.connect() as connection:
        for table in ("events", "jobs", "deliveries", "messages"):
            plan = _plan(
                connection, f"SELECT count(*) FROM ingest.{table} WHERE ctid::text <> ''", {}
            )
            assert set(_scanned(plan)), table
