"""The record of a replay or discard, and its status.

running ──pause──▶ paused ──resume──▶ running
running, paused, failed ──cancel──▶ cancelled
running ──▶ finished, or failed, which can be resumed

It has finished once nothing of it waits or runs any more, retries included. The row says `finished`
as soon as everything is requeued, so whoever reads it looks at the jobs, too (`work`): no process
has to notice that the last job has ended. What a pause or cancel does is in `changes`.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from ingest.errors import NotFound
from ingest.store.bulk import work
from ingest.store.bulk.selected import REPLAY, Counts
from ingest.store.bulk.work import MOST, MOST_IN_LIST, Work
from ingest.store.search.filters import EventFilter
from ingest.store.sql import statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A replay or a discard of a selection, and its progress."""

    id: int
    action: str
    status: str
    """`running` until nothing of it waits or runs; `paused`, `cancelled`, `finished`, `failed`."""
    requested_at: datetime
    requested_by: str
    reason: str | None
    selection: EventFilter
    background: bool
    """Whether the console runs it; otherwise the command that began it does."""
    rate: float | None
    total: int | None
    counts: Counts
    """What it has requeued or discarded and not taken back, and what it left alone."""
    work: Work
    """What has become of that."""
    taking_back: bool
    """Whether there may be more to take back after a pause or a cancel."""
    finished_at: datetime | None
    """When everything was requeued or discarded, or it was cancelled."""
    problem: str | None
    """Why it failed."""

    @property
    def is_moving(self) -> bool:
        """Return whether something of it waits, runs, or is being taken back."""
        return self.status == "running" or self.taking_back or bool(self.work.unfinished)

    @property
    def can_pause(self) -> bool:
        """Return whether something of it may be held back."""
        return self.status == "running" and bool(self.work.to_begin or self.work.waiting)

    @property
    def can_cancel(self) -> bool:
        """Return whether something of it may be taken back or left undone."""
        return self.status in ("running", "paused", "failed") or bool(self.work.waiting)


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
            "selection": json.dumps(selection.as_json(), default=str),
            "rate": rate,
            "total": total,
            "background": background,
        },
    ).scalar_one()
    return identity


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
_TAKING_BACK = statement(
    "SELECT id FROM ingest.replays WHERE taking_back AND status <> 'running' ORDER BY id"
)


def running_in_background(connection: Connection) -> list[int]:
    """Return the operations that the console has to advance, oldest first."""
    return list(connection.execute(_RUNNING).scalars())


def taking_back(connection: Connection) -> list[int]:
    """Return the operations of which something is to be taken back, oldest first."""
    return list(connection.execute(_TAKING_BACK).scalars())


_EXISTS = statement("SELECT EXISTS (SELECT FROM ingest.replays WHERE id = :id)")


def check(connection: Connection, identity: int) -> None:
    """Raise NotFound if no operation has that number."""
    if not connection.execute(_EXISTS, {"id": identity}).scalar_one():
        raise NotFound(f"There is no bulk action {identity}.", reason="not_found")


def operation(connection: Connection, identity: int) -> Operation:
    """Return an operation.

    Raises:
        NotFound: no operation has that number.
    """
    records = _operations(connection, "id = :id", {"id": identity}, most=MOST)
    if not records:
        raise NotFound(f"There is no bulk action {identity}.", reason="not_found")
    return records[0]


def operations(connection: Connection, *, limit: int, before: int | None = None) -> list[Operation]:
    """Return the newest operations, those before the number `before`.

    Of each state of an operation's jobs, `MOST_IN_LIST` are counted at most.
    """
    return _operations(
        connection,
        "CAST(:before AS bigint) IS NULL OR id < :before",
        {"before": before, "limit": limit},
        most=MOST_IN_LIST,
    )


def numbered(connection: Connection, numbers: Collection[int]) -> dict[int, Operation]:
    """Return operations by their numbers, counted as in a list; those that are gone are missing."""
    records = _operations(
        connection,
        "id = ANY(CAST(:ids AS bigint[]))",
        {"ids": list(numbers), "limit": len(numbers)},
        most=MOST_IN_LIST,
    )
    return {record.id: record for record in records}


def _operations(
    connection: Connection, condition: str, parameters: Mapping[str, Any], *, most: int
) -> list[Operation]:
    query = statement(
        f"SELECT * FROM ingest.replays WHERE {condition} ORDER BY id DESC LIMIT :limit"
    )
    rows = connection.execute(query, {"limit": 1, **parameters}).all()
    counted = work.read(connection, rows, most=most)
    return [
        Operation(
            id=row.id,
            action=row.action,
            status=_status(row.status, counted[row.id]),
            requested_at=row.requested_at,
            requested_by=row.requested_by,
            reason=row.reason,
            selection=EventFilter.from_json(row.selection),
            background=row.background,
            rate=row.rate,
            total=row.total,
            counts=Counts(jobs=row.jobs, events=row.events, running=row.running),
            work=counted[row.id],
            taking_back=row.taking_back,
            finished_at=row.finished_at,
            problem=row.problem,
        )
        for row in rows
    ]


def _status(stored: str, counted: Work) -> str:
    return "running" if stored == "finished" and counted.unfinished else stored
