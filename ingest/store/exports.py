"""The audit log's entry of an export: made when it begins, completed when it ends."""

from sqlalchemy import Connection

from ingest.store.reports.audit_log import Author
from ingest.store.sql import statement

EXPORT = "export"
"""The action in the audit log."""
_BEGIN = statement(
    "INSERT INTO ingest.actions (by, action, target, reason, via, subject)"
    " VALUES (:by, :action, :target, :reason, :via, :subject) RETURNING id"
)
_END = statement("UPDATE ingest.actions SET reason = :reason WHERE id = :id")


def begin(connection: Connection, *, by: Author, query: str, what: str) -> int:
    """Record who exports the events of a search; return the entry's number. If its process dies,
    that is what remains."""
    values = {
        "by": by.name,
        "via": by.via,
        "subject": by.subject,
        "action": EXPORT,
        "target": query or "all events",
        "reason": f"{what}: begun",
    }
    number: int = connection.execute(_BEGIN, values).scalar_one()
    return number


def end(connection: Connection, number: int, *, what: str) -> None:
    """Record how an export ended."""
    connection.execute(_END, {"id": number, "reason": what})
