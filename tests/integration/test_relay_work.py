"""A relay that has nothing to do finds that out by one statement."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event

from ingest.settings import load
from ingest.store.pipeline import relay_work
from tests.integration.conftest import Sent
from tests.support.rows import execute
from workers.relay.sweep import Relay, Swept

NUMBER = "01a22cb0-2469-7000-9792-000000000001"
_JOB = f"""
    INSERT INTO jobs (event, processor, queue, trigger, attempt, failures, max_attempts, state,
                      next_attempt_at, lease_until, finished_at)
    VALUES ('{NUMBER}', 'p', 'events', 'delivery', 1, 0, 8, %s)
"""
WORK = {
    "a delivery": f"""
        INSERT INTO unadmitted (delivery, source, event_id, type, fingerprint, received_at, queue,
                                hint_at)
        VALUES ('{NUMBER}', 'awalchat', 'x', 'x', '', now(), 'events', now())
    """,
    "a job that is due": _JOB % "'pending', now(), NULL, NULL",
    "a retry of tomorrow": _JOB % "'retrying', now() + interval '1 day', NULL, NULL",
    "a job behind another": _JOB % "'pending', 'infinity', NULL, NULL",
    "a lease that has ended": _JOB % "'running', NULL, now() - interval '1 s', NULL",
    "a job with an order": f"""
        INSERT INTO ordered_jobs (job, processor, event, placed) VALUES (1, 'p', '{NUMBER}', false)
    """,
    "a job with a limit": f"""
        INSERT INTO limited_jobs (job, processor, key, claimed)
        VALUES (1, 'p', '{NUMBER}', false)
    """,
    "a parked lane": """
        INSERT INTO parked (processor, queue, reason, since)
        VALUES ('p', 'events', 'unknown', now())
    """,
    "a periodic processor": """
        INSERT INTO schedules (processor, expression, zone, missed, overlap, next_due_at, skipped)
        VALUES ('p', '* * * * *', 'UTC', 'latest', false, now() + interval '1 day', 0)
    """,
}
NO_WORK = {
    "nothing": "SELECT",
    "a key in work": f"INSERT INTO keys_in_work (key, job) VALUES ('{NUMBER}', 1)",
    "a job that runs": _JOB % "'running', NULL, now() + interval '1 h', NULL",
    "a job that has succeeded": _JOB % "'succeeded', NULL, NULL, now()",
    "a dead letter": _JOB % "'dead', NULL, NULL, now()",
}


@contextmanager
def _counted(engine: Engine) -> Iterator[list[str]]:
    statements: list[str] = []

    def count(_connection: Any, _cursor: Any, sql: str, *_: Any) -> None:
        statements.append(sql)

    event.listen(engine, "before_cursor_execute", count)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", count)


def _is_there(engine: Engine) -> bool:
    with engine.connect() as connection:
        return relay_work.is_there(connection)


@pytest.mark.parametrize("what", WORK)
def test_whatever_a_sweep_may_have_to_do_is_found(engine: Engine, what: str) -> None:
    execute(engine, WORK[what])
    assert _is_there(engine)


@pytest.mark.parametrize("what", NO_WORK)
def test_what_nobody_waits_for_makes_no_sweep(engine: Engine, what: str) -> None:
    execute(engine, NO_WORK[what])
    assert not _is_there(engine)
    with _counted(engine) as statements:
        assert Relay(engine, Sent(), load()).sweep() == Swept(rescued=0, deliveries=0, jobs=0)
    assert len(statements) == 1
