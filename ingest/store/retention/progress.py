"""How far each kind of retention has come, in the table `retention`."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection

from ingest.store.sql import statement

EVENTS, DUPLICATES = "events", "duplicates"
PAST_EVENTS = "past_events"
REFUSALS, ACTIVITY, AUDIT = "refusals", "activity", "audit"
JOBS, ATTEMPTS = "jobs", "attempts"
FAILURES = "failures"
KINDS = (EVENTS, JOBS, ATTEMPTS, DUPLICATES, PAST_EVENTS, REFUSALS, ACTIVITY, AUDIT, FAILURES)
"""Everything that is removed; a kind is a table, but for the audit log and failures."""
START = UUID(int=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far the present pass over a table has come."""

    removed_to: UUID = START
    """Rows up to this id are done."""
    remembered_to: UUID = START
    """Events up to this id are in the memory, those that are finished."""
    ended_at: datetime | None = None
    """When the pass before ended; it tells two passes apart that stand at the same ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What has been removed of one kind."""

    kind: str
    removed: int
    """Rows, ever."""
    ended_at: datetime | None
    """When nothing older was left last."""


_POSITION = statement(
    "SELECT removed_to, remembered_to, ended_at FROM ingest.retention WHERE kind = :kind"
)


def position(connection: Connection, kind: str) -> Position:
    """Return how far the present pass over a kind has come."""
    row = connection.execute(_POSITION, {"kind": kind}).mappings().one_or_none()
    return Position(**row) if row else Position()


_MOVE = statement(
    """
    INSERT INTO ingest.retention (kind, removed, removed_to, remembered_to, ended_at)
    VALUES (:kind, :removed, :removed_to, :remembered_to, CASE WHEN :has_ended THEN now() END)
    ON CONFLICT (kind) DO UPDATE
    SET removed = retention.removed + excluded.removed, removed_to = excluded.removed_to,
        remembered_to = excluded.remembered_to,
        ended_at = coalesce(excluded.ended_at, retention.ended_at)
    """
)


def record(
    connection: Connection,
    kind: str,
    *,
    removed: int,
    to: Position = Position(),
    has_ended: bool = False,
) -> None:
    """Add to what was removed of a kind, in the transaction that removes it, and store how far the
    pass has come. `has_ended`: nothing older is left, and the next pass begins anew."""
    connection.execute(
        _MOVE,
        {
            "kind": kind,
            "removed": removed,
            "removed_to": to.removed_to,
            "remembered_to": to.remembered_to,
            "has_ended": has_ended,
        },
    )


_ALL = statement("SELECT kind, removed, ended_at FROM ingest.retention")


def read(connection: Connection) -> dict[str, Progress]:
    """Return what has been removed, by kind; a kind that never was is missing."""
    rows = connection.execute(_ALL).mappings()
    return {row["kind"]: Progress(**row) for row in rows}
