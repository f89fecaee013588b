"""However many jobs are parked, what can be done is found beside them at the same cost."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine

from ingest import queues
from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from ingest.store.pipeline import jobs
from ingest.store.reports import backlog
from tests.conftest import Servers
from tests.support.statistics import fill
from tests.support.work import Work, explained

DONE = 20_000
WAITING = 40
SMALL = 20 * WAITING
"""Blocks, and rows: what those that wait take, and the indexes of a row that is written anew."""

_PARK = """
    UPDATE jobs SET processor = 'removed', hinted_until = 'infinity'
    WHERE id = ANY(ARRAY(SELECT id FROM jobs WHERE state = 'pending' ORDER BY id LIMIT %(count)s))
"""
_END = """
    UPDATE jobs SET state = 'succeeded', lease_until = NULL, finished_at = now()
    WHERE state = 'running'
"""
_NOTE = "INSERT INTO parked (processor, queue, reason) VALUES ('removed', 'events', 'unknown')"


@pytest.fixture(params=["never analyzed", "analyzed"])
def relay(servers: Servers, database_url: str, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """The relay's engine, on a database where most of what waits is parked."""
    administrator = servers.as_administrator(database_url)
    with psycopg.connect(administrator, autocommit=True) as connection:
        connection.execute("SET search_path = ingest")
        connection.execute("ALTER TABLE jobs SET (autovacuum_enabled = off)")
        fill(connection, DONE // 2)
        connection.execute(_END)
        connection.execute(_PARK.encode(), {"count": DONE // 2 - WAITING})
        connection.execute(_NOTE)
        connection.execute("TRUNCATE unadmitted")
        connection.execute(
            "VACUUM (ANALYZE) jobs" if request.param == "analyzed" else "VACUUM jobs"
        )
    found = create_engine(parse(database_url), role=Role.RELAY)
    yield found
    found.dispose()


def test_the_relay_passes_what_is_parked_by(relay: Engine) -> None:
    asked: dict[str, Callable[[Connection], Any]] = {
        "due queues": jobs.queues,
        "due processors": partial(jobs.due_processors, queue=queues.LIVE, limit=10_000),
        "hint due": partial(jobs.dispatch_due, queue=queues.LIVE, limit=1_000, ttl_s=10),
        "parked lanes": jobs.parked_lanes,
    }
    taken: dict[str, Work] = {}
    with relay.begin() as connection:
        for what, statement in asked.items():
            _, taken[what] = explained(connection, statement)
    assert max(work.blocks for work in taken.values()) <= SMALL, taken


@pytest.mark.parametrize("relay", ["analyzed"], indirect=True)
def test_the_oldest_that_waits_is_found_without_a_visit_to_what_is_parked(
    relay: Engine, database_url: str
) -> None:
    operator = create_engine(parse(database_url), role=Role.OPERATOR)
    with operator.begin() as connection:
        found, taken = explained(connection, backlog.oldest)
    operator.dispose()
    assert found.job is not None
    assert taken.rows <= SMALL, taken


def test_what_is_parked_is_counted_by_its_index(relay: Engine, database_url: str) -> None:
    operator = create_engine(parse(database_url), role=Role.OPERATOR)
    with operator.begin() as connection:
        (lane,), taken = explained(connection, jobs.parked)
    operator.dispose()
    assert lane.jobs == DONE // 2 - WAITING
    assert taken.rows <= 3 * lane.jobs, taken
