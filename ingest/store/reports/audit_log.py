"""The operators' actions: who, when, what, to what, why. They are never deleted."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from ingest.store.pipeline.deliveries import Also
from ingest.store.sql import statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """An action of a person, or of a program with a token."""

    id: int
    at: datetime
    by: str
    action: str
    target: str
    reason: str | None
    replay: int | None
    """The bulk action that this began."""


_RECORD = statement(
    "INSERT INTO ingest.actions (by, action, target, reason, replay)"
    " VALUES (:by, :action, :target, :reason, :replay)"
)


def record(
    connection: Connection,
    *,
    by: str,
    action: str,
    target: str,
    reason: str | None = None,
    replay: int | None = None,
) -> None:
    """Record an action, in the transaction that performs it."""
    connection.execute(
        _RECORD,
        {"by": by, "action": action, "target": target, "reason": reason, "replay": replay},
    )


def also(*, by: str, action: str, target: str, reason: str | None) -> Also:
    """Return what records an action in the statement that stores a delivery."""
    sql = """recorded AS (
        INSERT INTO ingest.actions (by, action, target, reason)
        VALUES (%b::text, %b::text, %b::text, %b::text)
    )"""
    return Also(sql, (by, action, target, reason))


_NEWEST = statement(
    """
    SELECT id, at, by, action, target, reason, replay FROM ingest.actions
    WHERE CAST(:before AS bigint) IS NULL OR id < :before
    ORDER BY id DESC LIMIT :limit
    """
)


def newest(connection: Connection, *, limit: int, before: int | None = None) -> list[Action]:
    """Return the newest actions, those before the number `before`."""
    rows = connection.execute(_NEWEST, {"limit": limit, "before": before}).mappings()
    return [Action(**row) for row in rows]
