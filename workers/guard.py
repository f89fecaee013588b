"""A connection that does not let a processor end the transaction that it was handed.

A processor that commits by itself would make its effects permanent without its job's success, and
those of its neighbours too. It may reach for the connection on any level, so it is the driver's
connection that refuses.
"""

import functools
import re
from typing import Any

import psycopg
from sqlalchemy import Engine

from ingest.store import engine as database_module
from ingest.store.address import Database
from ingest.store.engine import PipelineConnection, Role

# What could end a transaction stands at the start of a statement. Comments may come before it,
# and another statement; in a literal it means nothing.
_KEYWORDS = re.compile(r"\b(?:commit|end|rollback|abort|begin|start|prepare)\b", re.IGNORECASE)
_NO_STATEMENT = re.compile(
    r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"[^\"]*\"|\$(\w*)\$.*?\$\1\$", re.DOTALL
)
_ENDS_TRANSACTION = re.compile(
    r"\s*(?:commit|end|abort|begin|start\s+transaction|prepare\s+transaction"
    r"|rollback(?!\s+(?:(?:work|transaction)\s+)?to\b))\b",
    re.IGNORECASE,
)


class TransactionEnded(Exception):
    """The processor tried to end the transaction that its effects and its success share."""

    def __init__(self) -> None:
        super().__init__(
            "a processor must not commit or roll back `db`: return to commit, raise to roll back, "
            "and use db.begin_nested() for a part"
        )


class Guarded:
    """What guards a driver's connection."""

    guarded = False
    refused = False
    """Whether it had to refuse. What SQLAlchemy holds of the transaction may be wrong since."""

    def check(self) -> None:
        """Raise while guarded.

        Raises:
            TransactionEnded: always then.
        """
        if self.guarded:
            self.refused = True
            raise TransactionEnded


class GuardedConnection(Guarded, PipelineConnection):
    """The driver's connection; while guarded, it refuses to end its transaction."""

    def commit(self) -> None:
        """Commit, unless guarded."""
        self.check()
        super().commit()

    def rollback(self) -> None:
        """Roll back, unless guarded."""
        self.check()
        super().rollback()


class GuardedCursor(psycopg.Cursor[Any]):
    """Its cursor, which looks at the statements."""

    def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
        """Execute, unless that would end a guarded transaction."""
        look_at(self.connection, query)
        return super().execute(query, *arguments, **options)

    def executemany(self, query: Any, *arguments: Any, **options: Any) -> None:
        """Execute many times, unless that would end a guarded transaction."""
        look_at(self.connection, query)
        super().executemany(query, *arguments, **options)


def look_at(connection: psycopg.BaseConnection[Any], query: Any) -> None:
    """Refuse a statement that would end a guarded transaction.

    Raises:
        TransactionEnded: it would.
    """
    if isinstance(connection, Guarded) and connection.guarded:
        if not isinstance(query, str):
            query = query.decode() if isinstance(query, bytes) else query.as_string(connection)
        if ends_transaction(query):
            connection.check()


@functools.lru_cache(maxsize=1_000)
def ends_transaction(query: str) -> bool:
    """Return whether one of the statements of `query` ends a transaction, or begins another."""
    if not _KEYWORDS.search(query):
        return False
    statements = _NO_STATEMENT.sub(" ", query).split(";")
    return any(_ENDS_TRANSACTION.match(statement) for statement in statements)


def create_engine(database: Database, *, pool_size: int = 1) -> Engine:
    """Return an engine for processors, whose connections are guarded."""
    return database_module.create_engine(
        database,
        role=Role.PROCESSOR,
        pool_size=pool_size,
        connection_class=GuardedConnection,
        cursor_factory=GuardedCursor,
    )
