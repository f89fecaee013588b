"""`db` of an async processor: an `AsyncConnection` that gets its transaction when it is first used.

Until then a call costs no connection, so a great many can wait for others at once.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncResult, AsyncTransaction
from sqlalchemy.ext.asyncio.base import asyncstartablecontext
from sqlalchemy.util import greenlet_spawn

from workers.guard import TransactionEnded

P = ParamSpec("P")
T = TypeVar("T")


class StillInUse(Exception):
    """The processor returned while a task of its own was running a statement on `db`."""

    def __init__(self) -> None:
        super().__init__("db was still in use when the processor returned: await what uses it")


class Database(AsyncConnection):
    """What a call is handed."""

    def __init__(self, begin: Callable[[], Awaitable[Connection]]) -> None:
        """`begin` returns the connection of a transaction that is this call's alone."""
        self._begin = begin
        self._lock = asyncio.Lock()
        self.has_ended = False
        """Whether the call has returned."""
        self._refused = False
        self.sync_connection: Connection | None = None

    def end(self) -> None:
        """Refuse all further use: the call has returned."""
        self.has_ended = True

    @property
    def is_in_use(self) -> bool:
        """Return whether a statement runs."""
        return self._lock.locked()

    def check(self) -> None:
        """Look at how a call has left it.

        Raises:
            TransactionEnded: the processor tried to end the transaction.
            StillInUse: a task of its own still runs a statement.
        """
        if self._refused:
            raise TransactionEnded
        if self.is_in_use:
            raise StillInUse

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Connection]:
        """Lend the connection, to one task at a time; get the transaction, unless it is there.

        Raises:
            InvalidRequestError: the call has returned.
        """
        async with self._lock:
            if self.sync_connection is None and not self.has_ended:
                connection = await self._begin()
                self.sync_engine = connection.engine
                self.sync_connection = self._assign_proxied(connection)
            if self.has_ended or self.sync_connection is None:
                raise InvalidRequestError("db was used after its processor had returned")
            yield self.sync_connection

    async def execute(self, *arguments: Any, **options: Any) -> Any:
        """Execute a statement and return its rows, buffered."""
        async with self.opened() as connection:
            return await greenlet_spawn(connection.execute, *arguments, **options)

    async def exec_driver_sql(self, *arguments: Any, **options: Any) -> Any:
        """Execute a statement as the driver spells it."""
        async with self.opened() as connection:
            return await greenlet_spawn(connection.exec_driver_sql, *arguments, **options)

    async def run_sync(
        self,
        fn: Callable[Concatenate[Connection, P], T],
        *arg: P.args,
        **kw: P.kwargs,
    ) -> T:
        """Call a function with the synchronous connection."""
        async with self.opened():
            return await super().run_sync(fn, *arg, **kw)

    async def execution_options(self, **opt: Any) -> AsyncConnection:
        """Set options of the statements that follow in this call."""
        async with self.opened():
            return await super().execution_options(**opt)

    @asyncstartablecontext
    async def stream(
        self, statement: Any, parameters: Any = None, *, execution_options: Any = None
    ) -> AsyncIterator[AsyncResult[Any]]:
        """Execute a statement and return its rows as they come."""
        async with self.opened() as connection:
            result = await greenlet_spawn(
                connection.execute,
                statement,
                parameters,
                execution_options={**(execution_options or {}), "stream_results": True},
            )
        rows: AsyncResult[Any] = AsyncResult(result)
        try:
            yield rows
        except GeneratorExit:  # awaited instead of entered: the call's end closes it
            pass
        else:
            await rows.close()

    def begin_nested(self) -> AsyncTransaction:
        """Return a savepoint, for `async with`."""
        return _Savepoint(self, nested=True)

    def begin(self) -> NoReturn:
        """Refuse: the transaction has begun."""
        self._refuse()

    async def commit(self) -> NoReturn:
        """Refuse: returning commits."""
        self._refuse()

    async def rollback(self) -> NoReturn:
        """Refuse: raising rolls back."""
        self._refuse()

    async def close(self) -> NoReturn:
        """Refuse: the connection is the worker's."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        self._refused = True
        raise TransactionEnded


class _Savepoint(AsyncTransaction):
    async def start(self, is_ctxmanager: bool = False) -> AsyncTransaction:
        """Get the transaction, and begin a savepoint in it."""
        database = self.connection
        assert isinstance(database, Database)
        async with database.opened():
            return await super().start(is_ctxmanager=is_ctxmanager)
