"""The transactions of async processors' effects: one for each call that uses `db`.

As those of the others (workers.transaction), but for the savepoints: a call shares its transaction
with no other.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from typing import Self

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from sqlalchemy import Connection
from sqlalchemy.exc import InvalidRequestError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import greenlet_spawn

from ingest import logs
from ingest.store.engine import BEGIN
from ingest.store.pipeline import breakers, jobs
from ingest.store.pipeline.jobs import JobRef, Lease
from ingest.store.pipeline.metrics import Note
from workers.coroutines.connection import GuardedAsyncConnection, GuardedAsyncCursor
from workers.coroutines.database import Database
from workers.guard import TransactionEnded
from workers.transaction import (
    COMMIT_LIMITS,
    RELEASE,
    RESET,
    SET_FOR_TRANSACTION,
    NestedLeftOpen,
    StatementFailed,
)

_CANCEL_S = 5.0

log = logs.logger(__name__)


class AsyncEffects:
    """A connection, and the transaction of one call after another."""

    def __init__(self, db: Connection, driver: GuardedAsyncConnection) -> None:
        self.db = db
        """For processors."""
        self._driver = driver
        self._pooled = db.connection
        self._options = db.get_execution_options()
        settings = f"{SET_FOR_TRANSACTION}{driver.settings}"
        self._begin = BEGIN + f"; {settings}".encode()
        before = f"{RESET}; {settings}; {COMMIT_LIMITS}"
        # After the commit a pooler gives the server connection to somebody else.
        before, after = (
            (before, f"; {RELEASE}") if driver.is_direct else (f"{before}; {RELEASE}", "")
        )
        self._before_commit = before.encode()
        self._commit = f"COMMIT{after}".encode()

    @classmethod
    async def open(cls, engine: AsyncEngine) -> Self:
        """Connect."""
        db = await greenlet_spawn(engine.sync_engine.connect)
        driver = db.connection.driver_connection
        assert isinstance(driver, GuardedAsyncConnection)
        return cls(db, driver)

    async def begin(self) -> None:
        """Begin a call's transaction.

        Raises:
            psycopg.Error: the connection is gone.
        """
        await self._driver.send(self._begin)
        self._root = self.db.begin()
        self._driver.refused = False
        self._driver.guarded = True

    async def commit(
        self,
        succeeded: Sequence[Lease],
        notes: Iterable[Note],
        *,
        hint_s: float | None,
        breaker_of: str | None,
    ) -> list[JobRef]:
        """After a call that returned: finish its jobs and commit, together.

        For the arguments and what is returned see `workers.transaction.Effects.commit`.

        Raises:
            StatementFailed, TransactionEnded, NestedLeftOpen: the call has done what it must not.
            LeaseLost: some jobs were taken over meanwhile.
            Exception: the commit was refused, or the connection is gone.
        """
        self._check()
        self._driver.guarded = False
        self._restore()
        await self._driver.send(self._before_commit)
        woken = await greenlet_spawn(self._finish, succeeded, notes, hint_s, breaker_of)
        await self._driver.send(self._commit)
        await greenlet_spawn(self.db.rollback)  # SQLAlchemy's own view of it: nothing is sent
        return woken

    async def rollback(self) -> bool:
        """Undo what is not committed; return whether the connection can serve another call."""
        driver = self._driver
        driver.guarded = False
        if driver.refused or driver.lock.locked() or self.db.closed or self.db.invalidated:
            return False
        try:
            if driver.info.transaction_status is not TransactionStatus.IDLE:
                await driver.send(f"ROLLBACK; RESET ALL; {RELEASE}".encode())
            await greenlet_spawn(self._forget)
        except Exception:
            return False
        self._restore()
        return True

    async def close(self) -> None:
        """Close the connection, in whatever state it is: what is not committed is rolled back."""
        driver = self._driver
        driver.guarded = False
        if driver.lock.locked():  # libpq must not free a connection that a task of the call's uses
            with contextlib.suppress(Exception):
                await driver.cancel_safe(timeout=_CANCEL_S)
        async with driver.lock:
            await driver.close()
        with contextlib.suppress(SQLAlchemyError):
            await greenlet_spawn(self._let_go)

    def _check(self) -> None:
        driver, db = self._driver, self.db
        if driver.info.transaction_status is TransactionStatus.INERROR:
            raise StatementFailed
        if (
            driver.refused
            or db.closed
            or db.invalidated
            or db.get_transaction() is not self._root
            or driver.info.transaction_status is not TransactionStatus.INTRANS
        ):
            raise TransactionEnded
        if db.in_nested_transaction():
            raise NestedLeftOpen

    def _finish(
        self,
        succeeded: Sequence[Lease],
        notes: Iterable[Note],
        hint_s: float | None,
        breaker_of: str | None,
    ) -> list[JobRef]:
        if breaker_of is not None and breakers.answered(
            self.db, breaker_of, [lease.id for lease in succeeded]
        ):
            log.info("breaker_closed", processor=breaker_of)
        if hint_s is not None:
            return jobs.finish_ordered(self.db, succeeded, notes, hint_s=hint_s)
        jobs.finish(self.db, succeeded, notes)
        return []

    def _forget(self) -> None:
        """Let SQLAlchemy see that the transaction is gone, and the savepoints in it."""
        if self.db.get_transaction() is not None:
            self.db.rollback()

    def _let_go(self) -> None:
        if self._pooled.is_valid:
            self._pooled.invalidate()
        self.db.close()

    def _restore(self) -> None:
        """Restore what a processor may have changed on the objects that it was handed."""
        self._driver.row_factory = tuple_row
        self._driver.cursor_factory = GuardedAsyncCursor
        if self.db.get_execution_options() != self._options:
            self.db.execution_options(stream_results=False, yield_per=None, no_parameters=False)


class Connections:
    """Connections that calls take by turns. All of it runs on the event loop."""

    def __init__(self, engine: AsyncEngine, *, most: int) -> None:
        """Open at most `most`, each when it is first needed."""
        self._engine = engine
        self._free = asyncio.Semaphore(most)
        self._idle: list[AsyncEffects] = []

    async def take(self) -> AsyncEffects:
        """Return a connection with a transaction begun; wait for one that is free.

        Raises:
            Exception: there is no database.
        """
        await self._free.acquire()
        try:
            while self._idle:
                effects = self._idle.pop()
                try:
                    await self._begin(effects)
                except psycopg.Error:  # the server has closed it since its last call
                    continue
                return effects
            effects = await AsyncEffects.open(self._engine)
            await self._begin(effects)
        except BaseException:
            self._free.release()
            raise
        return effects

    async def give_back(self, effects: AsyncEffects, *, is_clean: bool) -> None:
        """Take a connection back; close it unless it can serve another call."""
        try:
            if is_clean:
                self._idle.append(effects)
            else:
                await effects.close()
        finally:
            self._free.release()

    @staticmethod
    async def _begin(effects: AsyncEffects) -> None:
        try:
            await effects.begin()
        except BaseException:
            await effects.close()
            raise


class CallEffects:
    """The effects of one call: a transaction from its first use of `db` on."""

    def __init__(self, connections: Connections) -> None:
        self.db = Database(self._begin)
        """For the processor."""
        self._connections = connections
        self._effects: AsyncEffects | None = None

    @property
    def have_begun(self) -> bool:
        """Return whether there is a transaction."""
        return self._effects is not None

    async def commit(
        self,
        succeeded: Sequence[Lease],
        notes: Iterable[Note],
        *,
        hint_s: float | None,
        breaker_of: str | None = None,
    ) -> list[JobRef]:
        """Finish the jobs and commit (`AsyncEffects.commit`)."""
        assert self._effects is not None
        woken = await self._effects.commit(succeeded, notes, hint_s=hint_s, breaker_of=breaker_of)
        effects, self._effects = self._effects, None
        await self._connections.give_back(effects, is_clean=True)
        return woken

    async def rollback(self) -> None:
        """Undo what is not committed."""
        effects, self._effects = self._effects, None
        if effects is not None:
            is_clean = not self.db.is_in_use and await effects.rollback()
            await self._connections.give_back(effects, is_clean=is_clean)

    async def _begin(self) -> Connection:
        effects = await self._connections.take()
        if self.db.has_ended:  # while it waited for a connection, in a task that nobody awaited
            await self._connections.give_back(effects, is_clean=await effects.rollback())
            raise InvalidRequestError("db was used after its processor had returned")
        self._effects = effects
        return effects.db
