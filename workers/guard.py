"""Keeps a processor inside the transaction that it was handed.

A processor that commits by itself would make its effects permanent without its job's success, and
those of its neighbours too.
"""

import re
from typing import Any

from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, event

_ENDS_TRANSACTION = re.compile(
    r"\s*(?:commit|end|rollback(?!\s+to)|abort|begin|start\s+transaction|prepare\s+transaction)\b",
    re.IGNORECASE,
)


class TransactionEnded(Exception):
    """The processor ended the transaction that its effects and its success share."""

    def __init__(self) -> None:
        super().__init__(
            "a processor must not commit or roll back `db`: return to commit, raise to roll back, "
            "and use db.begin_nested() for a part"
        )


class StatementFailed(Exception):
    """A statement failed inside the processor, which went on as if nothing had happened."""

    def __init__(self) -> None:
        super().__init__(
            "a statement failed and PostgreSQL ignores what follows: let the error out, "
            "or put what may fail into db.begin_nested()"
        )


class Guard:
    """Watches one connection while processors use it."""

    def __init__(self, db: Connection) -> None:
        self._db = db
        self._open = False
        event.listen(db, "commit", self._refuse)
        event.listen(db, "rollback", self._refuse)
        event.listen(db, "before_cursor_execute", self._check)

    def lift(self) -> None:
        """From here on the transaction may end."""
        self._open = True

    def is_intact(self) -> bool:
        """Whether the transaction is still there, idle and without error."""
        return self._status() == TransactionStatus.INTRANS

    def check_intact(self) -> None:
        """Raise, with advice, when a processor has returned and left the transaction unusable.

        Raises:
            StatementFailed, TransactionEnded: as they say.
        """
        status = self._status()
        if status == TransactionStatus.INERROR:
            raise StatementFailed
        if status != TransactionStatus.INTRANS:
            raise TransactionEnded

    def _status(self) -> TransactionStatus:
        if self._db.closed or self._db.invalidated:
            return TransactionStatus.UNKNOWN
        driver: Any = self._db.connection.driver_connection
        return TransactionStatus(driver.info.transaction_status)

    def _refuse(self, _db: Connection) -> None:
        if not self._open:
            raise TransactionEnded

    def _check(
        self,
        _db: Connection,
        _cursor: object,
        statement: str,
        _parameters: object,
        _context: object,
        _executemany: bool,
    ) -> None:
        if not self._open and _ENDS_TRANSACTION.match(statement):
            raise TransactionEnded
