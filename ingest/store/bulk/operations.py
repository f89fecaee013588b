"""The record of a replay or discard, and its status.

running ──pause──▶ paused ──resume──▶ running
running, paused, failed ──cancel──▶ cancelled
running ──▶ finished, or failed, which can be resumed
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from ingest.errors import NotFound
from ingest.store.bulk.selected import REPLAY, Counts
from ingest.store.search.filters import EventFilter
from ingest.store.sql import statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A replay or a discard of a selection, and its progress."""

    id: int
    action: str
    status: str
    requested_at: datetime
    requested_by: str
    reason: str | None
    selection: EventFilter
    background: bool
    """Whether the console runs it; otherwise the command that began it does."""
    rate: float | None
    total: int | None
    counts: Counts
    finished_at: datetime | None
    problem: str | None
    """Why it failed."""


_BEGIN = statement(
    """
    INSERT INTO ingest.replays (action, requested_by, reason, selection, rate, total, background,
                         last_job, last_event)
    VALUES (:action, :requested_by, :reason, CAST(:selection AS jsonb), :rate, :total, :background,
            (SELECT id FROM ingest.jobs ORDER BY id DESC LIMIT 1),
            (SELECT id FROM ingest.events ORDER BY id DESC LIMIT 1))
    RETURNING id
    """
)


def begin(
    connection: Connection,
    selection: EventFilter,
    *,
    action: str = REPLAY,
    requested_by: str,
    reason: str | None,
    rate: float | None = None,
    total: int | None = None,
    background: bool = False,
) -> int:
    """Record a request to replay or discard a selection.

    Return its number, under which `advance` runs it, a batch a call.
    """
    identity: int = connection.execute(
        _BEGIN,
        {
            "action": action,
            "requested_by": requested_by,
            "reason": reason,
            "selection": json.dumps(_document(selection), default=str),
            "rate": rate,
            "total": total,
            "background": background,
        },
    ).scalar_one()
    return identity


def _document(selection: EventFilter) -> dict[str, Any]:
    """Return a selection as JSON, in the form that the release before reads where that is possible:
    it does not know `among`."""
    document = asdict(selection)
    return document if selection.among else {n: v for n, v in document.items() if n != "among"}


_CHANGE_STATUS = statement(
    """
    UPDATE ingest.replays
    SET status = CAST(:status AS text), problem = NULL,
        finished_at = CASE WHEN CAST(:status AS text) = 'cancelled' THEN now() END
    WHERE id = :id AND status IN ('running', 'paused', 'failed')
      AND (background OR CAST(:status AS text) = 'cancelled')
    """
)


def change_status(connection: Connection, operation: int, status: str) -> bool:
    """Pause, resume or cancel an operation; return whether that was possible.

    A finished or cancelled operation cannot change; a failed one can. An operation that a command
    runs can only be cancelled.
    """
    parameters = {"id": operation, "status": status}
    return connection.execute(_CHANGE_STATUS, parameters).rowcount > 0


_FAIL = statement(
    """
    UPDATE ingest.replays SET status = 'failed', problem = :problem, finished_at = now()
    WHERE id = :id AND status = 'running'
    """
)


def fail(connection: Connection, operation: int, problem: str) -> None:
    """Record why an operation cannot go on."""
    connection.execute(_FAIL, {"id": operation, "problem": problem})


_RUNNING = statement(
    "SELECT id FROM ingest.replays WHERE status = 'running' AND background ORDER BY id"
)


def running_in_background(connection: Connection) -> list[int]:
    """Return the operations that the console has to advance, oldest first."""
    return list(connection.execute(_RUNNING).scalars())


def operation(connection: Connection, identity: int) -> Operation:
    """Return an operation.

    Raises:
        NotFound: no operation has that number.
    """
    records = _operations(connection, "id = :id", {"id": identity})
    if not records:
        raise NotFound(f"There is no replay {identity}.", reason="not_found")
    return records[0]


def operations(connection: Connection, *, limit: int, before: int | None = None) -> list[Operation]:
    """Return the newest operations, those before the number `before`."""
    return _operations(
        connection,
        "CAST(:before AS bigint) IS NULL OR id < :before",
        {"before": before, "limit": limit},
    )


_OPERATIONS = """
    SELECT id, action, status, requested_at, requested_by, reason, selection, background, rate,
           total, jobs, events, running, finished_at, problem
    FROM ingest.replays
"""


def _operations(
    connection: Connection, condition: str, parameters: Mapping[str, Any]
) -> list[Operation]:
    query = statement(f"{_OPERATIONS} WHERE {condition} ORDER BY id DESC LIMIT :limit")
    rows = connection.execute(query, {"limit": 1, **parameters})
    return [
        Operation(
            id=row.id,
            action=row.action,
            status=row.status,
            requested_at=row.requested_at,
            requested_by=row.requested_by,
            reason=row.reason,
            selection=EventFilter.from_json(row.selection),
            background=row.background,
            rate=row.rate,
            total=row.total,
            counts=Counts(jobs=row.jobs, events=row.events, running=row.running),
            finished_at=row.finished_at,
            problem=row.problem,
        )
        for row in rows
    ]
