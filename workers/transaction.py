"""What a processor is handed to write its effects through, and what keeps it a good neighbour.

The jobs of a slice share a transaction and, one after another, a session. So each call stands in a
savepoint, and after it the session is as it was: settings, role, temporary tables.
"""

import contextlib
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

import psycopg
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.rows import tuple_row
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from ingest.store.engine import FOR_OURS
from ingest.store.pipeline import breakers, jobs
from ingest.store.pipeline.jobs import JobRef, Lease
from ingest.store.pipeline.metrics import Note
from workers.guard import GuardedConnection, GuardedCursor, TransactionEnded

_SAVEPOINT = "SAVEPOINT ingest_call"
_UNDO = "ROLLBACK TO SAVEPOINT ingest_call"
RESET = "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; DISCARD TEMP"
# Temporary tables come first in the search path unless it names them, and would stand before ours.
SET_FOR_TRANSACTION = (
    "SELECT pg_catalog.set_config("
    "'search_path', pg_catalog.current_setting('search_path') || ', pg_temp', true), "
)
"""To be continued by the connection's `settings`."""
_NEXT = "RELEASE SAVEPOINT ingest_call"
# What outlives a transaction.
RELEASE = "SELECT pg_catalog.pg_advisory_unlock_all(); UNLISTEN *; CLOSE ALL"

COMMIT_LIMIT_S = 30
"""For how long finishing the jobs, and then the commit, may each take: a deferred trigger of a
user's own may not hold the worker for ever."""
# Nor may a worker that is frozen before its commit hold those who count in the same row.
COMMIT_LIMITS = (
    f"SET LOCAL statement_timeout = '{COMMIT_LIMIT_S}s';"
    " SET LOCAL idle_in_transaction_session_timeout = '5s'; "
    f"{FOR_OURS}"
)


class StatementFailed(Exception):
    """A statement failed inside the processor, which went on as if nothing had happened."""

    def __init__(self) -> None:
        super().__init__(
            "a statement failed and PostgreSQL ignores what follows: let the error out, "
            "or put what may fail into db.begin_nested()"
        )


class NestedLeftOpen(Exception):
    """The processor returned with a `db.begin_nested()` open, so nobody knows what it meant."""

    def __init__(self) -> None:
        super().__init__("db.begin_nested() was left open: use it in a `with` block")


class Effects:
    """One transaction of processors' effects, on a connection of an engine that is guarded.

    The transaction is rolled back unless it was committed. After `discard_connection` nobody gets
    the connection again.
    """

    def __init__(self, engine: Engine) -> None:
        self.db: Connection = engine.connect()
        """For processors."""
        self.breaker_closed = False
        """Whether what was committed closed the processor's breaker."""
        pooled = self.db.connection
        driver = pooled.driver_connection
        assert isinstance(driver, GuardedConnection)
        self._pooled = pooled
        self._driver = driver
        self._options = self.db.get_execution_options()
        self._tidy = f"{RESET}; {SET_FOR_TRANSACTION}{driver.settings}; {_SAVEPOINT}"

    def __enter__(self) -> Self:
        try:
            self._root = self.db.begin()
            self._driver.refused = False
            self._send(self._tidy)
        except BaseException:
            self._give_back(clean=False)
            raise
        self._driver.guarded = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        self._driver.guarded = False
        self._give_back(clean=not self._driver.refused and self._left_clean())

    def is_intact(self) -> bool:
        """Return whether the transaction is still there, ours, and without error."""
        return (
            not self._driver.refused
            and not self.db.closed
            and not self.db.invalidated
            and self.db.get_transaction() is self._root
            and self._root.is_active
            and self._driver.info.transaction_status is TransactionStatus.INTRANS
        )

    def release_savepoint(self) -> None:
        """After a call that returned: keep its effects, tidy the session, be ready for the next.

        Raises:
            StatementFailed, TransactionEnded, NestedLeftOpen: as they say; the call is to be
                undone.
            psycopg.Error: the connection is gone.
        """
        if self._driver.info.transaction_status is TransactionStatus.INERROR:
            raise StatementFailed
        if not self.is_intact():
            raise TransactionEnded
        if self.db.in_nested_transaction():
            raise NestedLeftOpen
        self._restore()
        self._send(f"{_NEXT}; {self._tidy}")

    def rollback(self) -> bool:
        """After a call that failed: undo its effects; False when the transaction cannot go on."""
        with contextlib.suppress(Exception):  # the call's error is the one that is reported
            while (nested := self.db.get_nested_transaction()) is not None:
                nested.rollback()
        try:
            self._restore()
            self._send(_UNDO)
        except Exception:
            return False
        return self.is_intact() and not self.db.in_nested_transaction()

    def commit(
        self,
        succeeded: Sequence[Lease],
        notes: Iterable[Note] = (),
        *,
        hint_s: float | None = None,
        breaker_of: str | None = None,
    ) -> list[JobRef]:
        """Finish the jobs and commit, together; `notes` say how long it took.

        With `hint_s`, jobs of a processor with an order: return those that were behind them, which
        the relay leaves to the caller for so many seconds. `breaker_of` is the processor, if it has
        a breaker, which is told of the success.

        Raises:
            LeaseLost: some were taken over meanwhile; nothing is committed.
            Exception: the commit was refused, or the connection is gone.
        """
        self._driver.guarded = False
        # After the commit a pooler gives the server connection to somebody else.
        self._send(COMMIT_LIMITS if self._driver.is_direct else f"{RELEASE}; {COMMIT_LIMITS}")
        if breaker_of is not None:
            self.breaker_closed = breakers.answered(
                self.db, breaker_of, [lease.id for lease in succeeded]
            )
        if hint_s is not None:
            woken = jobs.finish_ordered(self.db, succeeded, notes, hint_s=hint_s)
            self.db.commit()
            return woken
        jobs.finish(self.db, succeeded, notes)
        self.db.commit()
        return []

    def discard_connection(self) -> None:
        """Close the connection, in whatever state it is: what is not committed is rolled back."""
        self._driver.guarded = False
        self._driver.close()
        if self._pooled.is_valid:
            self._pooled.invalidate()

    def _left_clean(self) -> bool:
        """Roll back what was not committed, and clear what outlives a transaction; False when that
        did not work."""
        if self._driver.closed:
            return False
        is_open = self._driver.info.transaction_status is not TransactionStatus.IDLE
        end = "ROLLBACK; " if is_open else ""
        left = self._driver.pgconn.exec_(f"{end}RESET ALL; {RELEASE}".encode())
        return left.status == ExecStatus.COMMAND_OK

    def _give_back(self, *, clean: bool) -> None:
        """To the pool, which has this one only: kept from it, no job would run here again."""
        if not clean:
            self.discard_connection()
        with contextlib.suppress(SQLAlchemyError):
            self.db.close()

    def _restore(self) -> None:
        """Restore what a processor may have changed on the objects that it was handed."""
        self._driver.row_factory = tuple_row
        self._driver.cursor_factory = GuardedCursor
        if self.db.get_execution_options() != self._options:
            self.db.execution_options(stream_results=False, yield_per=None, no_parameters=False)

    def _send(self, statements: str) -> None:
        """Statements without parameters, in one round trip."""
        with psycopg.Cursor(self._driver) as cursor:
            cursor.execute(statements.encode(), prepare=False)
