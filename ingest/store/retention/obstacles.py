"""What keeps events from being removed for now.

A worker of a release before 0013 does not know the memory of removed events: it would admit a late
duplicate as a new event. So nothing is removed while such a worker is alive. Before the first
removal, code of those releases is refused its start on this database (ingest.store.startup_check),
which has to be so for a minute: a worker that was let in just before has reported itself by then.
"""

from datetime import timedelta

from sqlalchemy import Connection

from ingest.store.reports import heartbeats
from ingest.store.sql import statement

_REVISION = "0013"
"""The oldest code whose admission knows the memory."""
_CLOSED_FOR = timedelta(minutes=1)

_CLOSE = statement(
    """
    WITH closed AS (
        UPDATE ingest.revisions SET oldest_code = CAST(:revision AS text)
        WHERE oldest_code < CAST(:revision AS text) AND revision >= CAST(:revision AS text)
        RETURNING 1
    )
    INSERT INTO ingest.retention (kind, closed_at)
    SELECT 'events', now()
    WHERE EXISTS (SELECT FROM closed)
       OR (SELECT closed_at FROM ingest.retention WHERE kind = 'events') IS NULL
    ON CONFLICT (kind) DO UPDATE SET closed_at = excluded.closed_at
    """
)


def refuse_older_code(connection: Connection) -> None:
    """Refuse a start to code that does not know the memory; later calls change nothing."""
    connection.execute(_CLOSE, {"revision": _REVISION})


_REPLAY = statement("SELECT id FROM ingest.replays WHERE status = 'running' ORDER BY id LIMIT 1")
_IS_CLOSED = statement(
    """
    SELECT coalesce(bool_and(oldest_code >= CAST(:revision AS text)), false)
           AND (SELECT closed_at < now() - CAST(:closed_for AS interval)
                FROM ingest.retention WHERE kind = 'events') IS TRUE
    FROM ingest.revisions WHERE revision >= CAST(:revision AS text)
    """
)


def find(connection: Connection) -> str | None:
    """Return why no event may be removed now, as a sentence; None: events may be removed."""
    worker = heartbeats.older_worker(connection)
    if worker is not None:
        return f"Worker {worker} is of an older release, which does not know removed events."
    replay = connection.execute(_REPLAY).scalar()
    if replay is not None:
        return f"Replay {replay} runs; if nobody runs it any more, cancel it in the console."
    parameters = {"revision": _REVISION, "closed_for": _CLOSED_FOR}
    if not connection.execute(_IS_CLOSED, parameters).scalar_one():
        return "Code of older releases was refused its start less than a minute ago, or not yet."
    return None
