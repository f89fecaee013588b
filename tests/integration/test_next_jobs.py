"""Which jobs a bulk action takes next: each once, in the order of their events, in turns with the
release before, and at a bounded cost whatever the planner believes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Connection, Engine, text

from ingest.store.address import parse
from ingest.store.bulk import next_jobs, replay
from ingest.store.bulk.changes import PAUSED, RUNNING
from ingest.store.bulk.next_jobs import NextJobs, Search
from ingest.store.bulk.replay import DISCARD, REPLAY
from ingest.store.engine import Role, create_engine
from ingest.store.pipeline import jobs
from ingest.store.search.filters import EventFilter
from tests.conftest import Servers, cloned
from tests.integration.test_taking_back import advance, begin, change, succeed
from tests.support.deliver import deliver, order
from tests.support.rows import execute, one, rows
from tests.support.states import give_job
from tests.support.work import explained

DEAD = EventFilter(state="dead")


@pytest.fixture
def dead(engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch) -> list[UUID]:
    """Events with a dead job each, whose ids are against the order of the events; two a batch."""
    monkeypatch.setattr(replay, "BATCH", 2)
    monkeypatch.setattr(next_jobs, "SLICE", 3)
    ids = deliver(database_url, [order(number) for number in range(8)])
    execute(
        engine,
        "INSERT INTO events SELECT delivery, source, event_id, type, fingerprint, received_at"
        " FROM unadmitted",
    )
    execute(engine, "DELETE FROM unadmitted")
    for event in reversed(ids):
        give_job(engine, event, "dead", "p")
    execute(engine, "DELETE FROM unhandled")
    execute(engine, "UPDATE jobs SET started_at = finished_at")
    return ids


def waiting(engine: Engine) -> list[UUID]:
    """The events of the jobs that wait, in the order that they fall due in."""
    query = "SELECT event FROM jobs WHERE state = 'pending' ORDER BY next_attempt_at, event"
    return [row["event"] for row in rows(engine, query)]


def advance_as_before(engine: Engine, number: int) -> None:
    """Do a batch of dead letters as the release before does, in the order of the jobs' ids."""
    with engine.begin() as connection:
        row = connection.execute(text("SELECT * FROM replays FOR UPDATE")).one()
        page = text(
            "SELECT id FROM jobs WHERE state = 'dead' AND coalesce(replay, 0) < :number"
            " AND id > :after AND id <= :last ORDER BY id LIMIT 2"
        )
        bounds = {"number": number, "after": row.after_job, "last": row.last_job}
        ids = list(connection.execute(page, bounds).scalars())
        jobs.requeue(connection, ids, replay=number, queue="replay", delays_s=[0.0] * len(ids))
        connection.execute(
            text("UPDATE replays SET after_job = :last, jobs = jobs + :jobs"),
            {"last": ids[-1], "jobs": len(ids)},
        )


def test_jobs_are_taken_in_the_order_of_their_events(engine: Engine, dead: list[UUID]) -> None:
    give_job(engine, dead[1], "dead", "q")
    execute(engine, "UPDATE jobs SET started_at = finished_at")
    told = list(replay.run(engine, DEAD, requested_by="sara", reason=None, rate=10))
    assert [counts.jobs for counts in told] == [3, 5, 7, 9]  # those of an event together
    assert waiting(engine) == sorted([*dead, dead[1]])


def test_a_slice_without_any_that_is_meant_is_passed(engine: Engine, dead: list[UUID]) -> None:
    give_job(engine, dead[7], "dead", "q")
    execute(engine, "UPDATE jobs SET started_at = finished_at")
    number = begin(engine, EventFilter(processor="q"))
    assert replay.advance(engine, number).counts.jobs == 0
    advance(engine, number)
    assert waiting(engine) == [dead[7]]


def test_an_operation_that_the_release_before_began_goes_on(
    engine: Engine, dead: list[UUID]
) -> None:
    """Of what that has passed by nothing is taken, though it is dead since."""
    execute(engine, "UPDATE jobs SET state = 'succeeded' WHERE event = :id", id=dead[-1])
    number = begin(engine, DEAD)
    advance_as_before(engine, number)
    execute(engine, "UPDATE jobs SET state = 'dead' WHERE event = :id", id=dead[-1])
    advance(engine, number)
    assert sorted(waiting(engine)) == dead[:-1]
    assert one(engine, "SELECT jobs FROM replays") == len(dead) - 1


def test_both_releases_do_batches_of_an_operation_in_turns(
    engine: Engine, dead: list[UUID]
) -> None:
    number = begin(engine, DEAD)
    replay.advance(engine, number)
    advance_as_before(engine, number)
    replay.advance(engine, number)
    advance_as_before(engine, number)
    assert sorted(waiting(engine)) == dead
    advance(engine, number)
    assert one(engine, "SELECT jobs FROM replays") == len(dead)
    assert one(engine, "SELECT status FROM replays") == "finished"


def test_what_the_release_before_took_back_is_not_passed_by(
    engine: Engine, dead: list[UUID]
) -> None:
    number = begin(engine, DEAD)
    advance(engine, number)
    reached = one(engine, "SELECT after_jobs_of FROM replays")
    succeed(engine, [one(engine, "SELECT id FROM jobs WHERE event = :id", id=dead[3])])
    assert change(engine, number, PAUSED)
    execute(engine, "UPDATE replays SET after_jobs_of = :reached", reached=reached)
    assert change(engine, number, RUNNING)
    advance(engine, number)
    assert sorted(waiting(engine)) == [*dead[:3], *dead[4:]]
    assert one(engine, "SELECT count(*) FROM taken_back") == 0
    assert one(engine, "SELECT jobs FROM replays") == len(dead)


def test_a_resumed_replay_begins_again_at_the_first_that_was_taken_back(
    engine: Engine, dead: list[UUID]
) -> None:
    number = begin(engine, DEAD)
    replay.advance(engine, number)
    change(engine, number, PAUSED)
    change(engine, number, RUNNING)
    replay.advance(engine, number)
    assert waiting(engine) == dead[:2]


def test_a_job_that_was_taken_back_and_runs_meanwhile_does_not_keep_it_from_its_end(
    engine: Engine, dead: list[UUID]
) -> None:
    number = begin(engine, EventFilter(ids=tuple(dead)))
    advance(engine, number)
    change(engine, number, PAUSED)
    execute(
        engine,
        "UPDATE jobs SET state = 'running', lease_until = now(), finished_at = NULL"
        " WHERE event = :id",
        id=dead[2],
    )
    change(engine, number, RUNNING)
    for _ in range(len(dead)):
        done = replay.advance(engine, number)
    assert done.has_ended
    assert waiting(engine) == [*dead[:2], *dead[3:]]
    assert one(engine, "SELECT running FROM replays") == 1


def test_a_job_that_changes_meanwhile_is_left_and_the_others_are_not(
    engine: Engine, dead: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the search and the lock, somebody discards the first two."""
    number = begin(engine, DEAD)
    locked = Search._locked

    def discard_first(search: Search, page: Any) -> Any:
        monkeypatch.setattr(Search, "_locked", locked)
        with engine.begin() as other:
            jobs.discard(other, [row.id for row in page], replay=None, why="by sara")
        return locked(search, page)

    monkeypatch.setattr(Search, "_locked", discard_first)
    advance(engine, number)
    assert sorted(waiting(engine)) == dead[2:]


COUNT = 20_000
SIZE, SLICE = 100, 1_000
# A tenth of a second apart. The dead letters are spread, and one of 4,000 events is of a rare type.
FILL = """
    WITH filled AS MATERIALIZED (
        SELECT i, (lpad(to_hex(%(begin)s + i * 100), 12, '0') || '7' || substr(hash, 1, 3) || '8'
                   || substr(hash, 4, 15))::uuid AS id
        FROM (SELECT i, md5(i::text) AS hash FROM generate_series(1, %(count)s) AS i) AS numbered
    ), sent AS (
        INSERT INTO deliveries (id, source, received_at, key_id, headers, body)
        SELECT id, 'awalchat', now(), '-', '[]', '{{}}' FROM filled
    ), known AS (
        INSERT INTO events
        SELECT id, 'awalchat', i::text, CASE WHEN i %% 4000 = 0 THEN 'rare' ELSE 'often' END, '-',
               now()
        FROM filled
    )
    INSERT INTO jobs (event, processor, queue, state, trigger, attempt, failures, max_attempts,
                      finished_at)
    SELECT id, 'p', 'events', {state}, 'delivery', 1, 1, 3, now() FROM filled
"""
SPREAD = "CASE WHEN i %% 10 = 1 THEN 'dead' ELSE 'succeeded' END"
SETTLE = """
    UPDATE jobs SET state = CASE WHEN id %% 10 = 1 THEN 'dead' ELSE 'succeeded' END
    WHERE state <> CASE WHEN id %% 10 = 1 THEN 'dead' ELSE 'succeeded' END
"""


def fill(connection: psycopg.Connection, state: str = SPREAD, count: int = COUNT) -> None:
    begin = int((datetime.now(UTC) - timedelta(seconds=COUNT / 10)).timestamp() * 1000)
    connection.execute(sql.SQL(FILL.format(state=state)), {"begin": begin, "count": count})


def fresh(connection: psycopg.Connection) -> None:
    fill(connection)
    connection.execute("VACUUM (ANALYZE)")


def never_analyzed(connection: psycopg.Connection) -> None:
    fill(connection)


def analyzed_while_empty(connection: psycopg.Connection) -> None:
    fill(connection, count=10)
    connection.execute("ANALYZE")
    for table in ("jobs", "events", "deliveries"):
        connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
    connection.execute("VACUUM (ANALYZE)")
    fill(connection)


def analyzed_while_all_succeeded(connection: psycopg.Connection) -> None:
    fill(connection, "'succeeded'")
    connection.execute("VACUUM (ANALYZE)")
    connection.execute(sql.SQL(SETTLE), {})


def analyzed_while_all_were_dead(connection: psycopg.Connection) -> None:
    fill(connection, "'dead'")
    connection.execute("VACUUM (ANALYZE)")
    connection.execute(sql.SQL(SETTLE), {})


def believed_to_be_ten_million(connection: psycopg.Connection) -> None:
    fresh(connection)
    connection.execute(
        "UPDATE pg_class SET reltuples = 10000000 WHERE relname IN ('jobs', 'events')"
    )


BELIEFS = (
    *(fresh, never_analyzed, analyzed_while_empty, analyzed_while_all_succeeded),
    *(analyzed_while_all_were_dead, believed_to_be_ten_million),
)


@contextmanager
def believing(
    servers: Servers, template: str, belief: Callable[[psycopg.Connection], None]
) -> Iterator[Engine]:
    with cloned(servers, template) as url:
        with psycopg.connect(servers.as_administrator(url), autocommit=True) as connection:
            connection.execute("SET search_path = ingest")
            for table in ("jobs", "events"):
                connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)".encode())
            connection.execute("SET session_replication_role = replica")
            belief(connection)
        engine = create_engine(parse(url), role=Role.OPERATOR)
        try:
            yield engine
        finally:
            engine.dispose()


@pytest.mark.parametrize("belief", BELIEFS)
def test_a_batch_reads_a_slice_whatever_the_planner_believes(
    servers: Servers,
    template: str,
    monkeypatch: pytest.MonkeyPatch,
    belief: Callable[[psycopg.Connection], None],
) -> None:
    """What is before the times that are meant, and what is left after the batch, is not read."""
    monkeypatch.setattr(next_jobs, "SLICE", SLICE)
    lately = datetime.now(UTC) - timedelta(seconds=COUNT / 40)
    with believing(servers, template, belief) as engine, engine.connect() as connection:
        for selection, action, least in (
            (EventFilter(state="succeeded", since=lately), REPLAY, SIZE),
            (EventFilter(state="succeeded", processor="p", since=lately), REPLAY, SIZE),
            (EventFilter(state="succeeded", types=("rare",)), REPLAY, 0),
            (EventFilter(state="succeeded", processor="none"), REPLAY, 0),
            (DEAD, REPLAY, SIZE),
            (DEAD, DISCARD, SIZE),
            (EventFilter(state="dead", since=lately), REPLAY, SIZE),
            (EventFilter(error_type="E"), REPLAY, 0),
            (EventFilter(state="pending"), REPLAY, 0),
        ):
            row = _begun(connection, selection, action)
            found, work = explained(connection, partial(_first, row=row, selection=selection))
            assert found is not None
            assert len(found.ids) >= least, selection
            assert work.rows <= 12 * SLICE, (selection, work)


def _first(connection: Connection, row: Any, selection: EventFilter) -> NextJobs | None:
    return Search(connection, row, selection, size=SIZE).following()


def _begun(connection: Connection, selection: EventFilter, action: str) -> Any:
    number = replay.begin(
        connection, selection, action=action, requested_by="sara", reason=None, background=True
    )
    return connection.execute(
        text("SELECT * FROM ingest.replays WHERE id = :id"), {"id": number}
    ).one()
