"""The audit log's entry of an export: made when it begins, completed when it ends."""

from sqlalchemy import Connection

from ingest.store.sql import statement

EXPORT = "export"
"""The action in the audit log."""
_BEGIN = statement(
    "INSERT INTO ingest.actions (by, action, target, reason)"
    " VALUES (:by, :action, :target, :reason) RETURNING id"
)
_END = statement("UPDATE ingest.actions SET reason = :reason WHERE id = :id")


def begin(connection: Connection, *, by: str, query: str, what: str) -> int:
    """Record who exports the events of a search; return the entry's number. If its process dies,
    that is what remains."""
    values = {
        "by": by,
        "action": EXPORT,
        "target": query or "all events",
        "reason": f"{what}: begun",
    }
    number: int = connection.execute(_BEGIN, values).scalar_one()
    return number


def end(connection: Connection, number: int, *, what: str) -> None:
    """Record how an export ended."""
    connection.execute(_END, {"id": number, "reason": what})
