"""Databases whose statistics were taken at the wrong moment, or never.

Each state has the same live rows: what waits to be admitted, and jobs that wait, run or are done.
They differ in what the planner knows of them, and in the dead rows between them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

import psycopg

TABLES = (
    *("unadmitted", "events", "duplicates", "past_events", "jobs", "attempts", "processors"),
    "activity",
)
"""What the hot statements read and write, apart from the deliveries."""


class State(StrEnum):
    """What the planner knows of the hot tables."""

    NEVER = "never analyzed"
    EMPTY = "analyzed empty"
    FULL = "analyzed full"
    DEAD = "dead rows"
    BELIEVED = "ten million believed"
    """As few rows as in the others; for tests of plans, where ten million would take too long."""


@contextmanager
def prepared(url: str, state: State, *, waiting: int, dead: int) -> Iterator[None]:
    """Bring an empty, migrated database into a state, and keep it there.

    Args:
        url: its address.
        state: which.
        waiting: so many deliveries and so many jobs wait, twice as many jobs are done.
        dead: so many rows more were in the queues, and vacuum must not remove them. Only for DEAD.
    """
    with psycopg.connect(url, autocommit=True) as connection, psycopg.connect(url) as reader:
        connection.execute("SET search_path = ingest")
        for table in TABLES:
            connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)".encode())
        if state is State.EMPTY:
            fill(connection, waiting)
            _forget(connection)
        fill(connection, waiting)
        if state in (State.FULL, State.BELIEVED):
            connection.execute("VACUUM (ANALYZE)")
        if state is State.BELIEVED:
            connection.execute(_BELIEVE.encode(), {"tables": list(TABLES)})
        if state is State.DEAD:
            reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            reader.execute("SELECT count(*) FROM ingest.unadmitted")
            _bury(connection, dead)
            connection.execute("ANALYZE")
        yield


def fill(connection: psycopg.Connection, waiting: int) -> None:
    """Store what waits and what is done."""
    # The triggers would count row by row what nobody asks for here.
    connection.execute("SET search_path = ingest")
    connection.execute("SET session_replication_role = replica")
    connection.execute(_UNADMITTED.encode(), {"count": waiting, "age_s": 1.0})
    connection.execute(_JOBS.encode(), {"count": 4 * waiting, "age_s": 1.0})
    connection.execute(_PAST.encode(), {"count": waiting})
    connection.execute("SET session_replication_role = origin")


def _forget(connection: psycopg.Connection) -> None:
    """Empty the tables, and let the planner know; their pages stay, as they do behind a reader."""
    for table in TABLES:
        connection.execute(f"DELETE FROM {table}".encode())
        connection.execute(f"VACUUM (TRUNCATE off) {table}".encode())
        connection.execute(f"ANALYZE {table}".encode())


def _bury(connection: psycopg.Connection, dead: int) -> None:
    """Leave dead rows, older than the live ones, in the queues and in their indexes."""
    connection.execute("SET session_replication_role = replica")
    values = {"count": dead, "age_s": 3600.0}
    connection.execute(_UNADMITTED.encode(), values)
    connection.execute(_JOBS.encode(), values)
    connection.execute("DELETE FROM unadmitted WHERE event_id LIKE '3600%'")
    connection.execute(
        "UPDATE jobs SET state = 'succeeded', next_attempt_at = NULL, lease_until = NULL,"
        " finished_at = now() WHERE worker = '3600' AND state <> 'succeeded'"
    )
    connection.execute("SET session_replication_role = origin")


_BELIEVE = """
    UPDATE pg_class SET reltuples = 10000000 WHERE relkind = 'r'
    AND (relname = ANY(%(tables)s) OR relname LIKE 'deliveries%%')
"""
_IDS = """
    SELECT i, (lpad(to_hex(ms + i * 10 / %(count)s), 12, '0') || '7' || substr(hash, 1, 3) || '8'
               || substr(hash, 4, 15))::uuid AS id
    FROM (SELECT i, md5(random()::text || i) AS hash,
                 CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)
                     - CAST(%(age_s)s * 1000 AS bigint) AS ms
          FROM generate_series(1, %(count)s) AS i) AS numbered
"""
_PAST = """
    INSERT INTO past_events (digest, fingerprint, event, day)
    SELECT substring(sha256(id::text::bytea) FOR 16), '\\x00', id, now()
    FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, %(count)s)) AS made
"""
_UNADMITTED = f"""
    INSERT INTO unadmitted (delivery, source, event_id, type, fingerprint, received_at, queue,
                            hint_at)
    SELECT id, 'awalchat', %(age_s)s || '-' || id, 'order.created', sha256(id::text::bytea),
           now() - make_interval(secs => %(age_s)s), 'events',
           now() - make_interval(secs => %(age_s)s)
    FROM ({_IDS}) AS made
"""
_JOBS = f"""
    WITH made AS MATERIALIZED ({_IDS}), known AS (
        INSERT INTO events (id, source, event_id, type, fingerprint, received_at)
        SELECT id, 'awalchat', %(age_s)s || '-' || id, 'order.created', sha256(id::text::bytea),
               now() - make_interval(secs => %(age_s)s)
        FROM made
    )
    INSERT INTO jobs (event, processor, queue, state, trigger, attempt, failures, max_attempts,
                      started_at, worker, next_attempt_at, lease_until, finished_at)
    SELECT id, 'orders', 'events',
           CASE i %% 4 WHEN 0 THEN 'pending' WHEN 1 THEN 'running' ELSE 'succeeded' END,
           'delivery', 1, 0, 8, now(), CAST(CAST(%(age_s)s AS integer) AS text),
           CASE WHEN i %% 4 = 0 THEN now() - make_interval(secs => %(age_s)s) END,
           CASE WHEN i %% 4 = 1 THEN now() + interval '60 s' - make_interval(secs => %(age_s)s) END,
           CASE WHEN i %% 4 > 1 THEN now() END
    FROM made
"""
