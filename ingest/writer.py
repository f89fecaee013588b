"""The writer: group commit. Requests that arrive during a flush make the next one; idle, none
waits.

One connection, one statement per flush. `append` returns when the delivery is committed, and only
then may the request be answered 200.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import psycopg

from ingest import queues, telemetry
from ingest.errors import StorageUnavailable
from ingest.store import deliveries
from ingest.store.address import Database
from ingest.store.database import UnfitDatabase, WriterConnection
from ingest.store.deliveries import Delivery

_RECONNECT_S = (0.05, 0.1, 0.2, 0.5)
# All of it: the look-up of the name, each host of the address, the login, and the first answer,
# which a pooler without a server behind it never gives.
_OPEN_TIMEOUT_S = 5.0

T = TypeVar("T")

log = telemetry.logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What bounds the writer."""

    flush_rows: int
    flush_bytes: int
    flush_timeout_s: float
    backlog_rows: int
    backlog_bytes: int
    hint_grace_s: float


@dataclass(slots=True)
class _Waiting:
    delivery: Delivery
    committed: asyncio.Future[None]


class DeliveryWriter:
    """Commits deliveries in groups."""

    def __init__(
        self, database: Database, limits: Limits, *, on_commit: Callable[[Sequence[UUID]], None]
    ) -> None:
        """`on_commit` gets the ids of committed deliveries that are events; it must not block."""
        self._database = database
        self._limits = limits
        self._on_commit = on_commit
        self._backlog: deque[_Waiting] = deque()
        self._backlog_bytes = 0
        self._arrived = asyncio.Event()
        self._connection: WriterConnection | None = None
        self._unreachable: str | None = None
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._abandoned: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start the loop. Without a database it starts too, and `append` raises until there is
        one."""
        self._task = asyncio.create_task(self._run(), name="writer")

    async def append(self, delivery: Delivery) -> None:
        """Return when `delivery` is committed.

        Raises:
            StorageUnavailable: it was not committed, or nobody knows; the sender must send it
                again."""
        await self.submit(delivery)

    def submit(self, delivery: Delivery) -> asyncio.Future[None]:
        """What is done when `delivery` is committed, or fails as `append` does.

        Raises:
            StorageUnavailable: it cannot even wait for that."""
        if self._unreachable is not None:
            raise _unavailable(self._unreachable)
        if self._closing:
            raise StorageUnavailable("The receiver is shutting down.", reason="shutting_down")
        if (
            len(self._backlog) >= self._limits.backlog_rows
            or self._backlog_bytes + delivery.size > self._limits.backlog_bytes
        ):
            raise StorageUnavailable("Too many deliveries wait already.", reason="backlog_full")
        committed = asyncio.get_running_loop().create_future()
        self._backlog.append(_Waiting(delivery, committed))
        self._backlog_bytes += delivery.size
        self._arrived.set()
        return committed

    async def close(self) -> None:
        """Refuse what comes, commit what waits, close the connection."""
        self._closing = True
        self._arrived.set()
        if self._task is not None:
            await self._task
        if self._connection is not None:
            await self._connection.close()

    async def _run(self) -> None:
        """Flush until closed; a failure of any kind ends in answers, never in the end of this
        loop."""
        while not (self._closing and not self._backlog):
            try:
                if self._connection is None:
                    await self._connect()
                await self._arrived.wait()
                self._arrived.clear()
                while self._backlog:
                    await self._flush(self._take())
            except StorageUnavailable as error:
                self._refuse_backlog(error)

    async def _connect(self) -> None:
        """Connect, with growing pauses; while it does not work, appends are refused at once."""
        attempt = 0
        while self._connection is None:
            try:
                self._connection = await self._open()
            except Exception as error:
                unavailable = _as_unavailable(error)
                if self._unreachable is None:
                    log.error("database_unreachable", reason=unavailable.reason, exc_info=error)
                self._unreachable = unavailable.reason
                self._refuse_backlog(unavailable)
                if self._closing:
                    raise unavailable from None
                await asyncio.sleep(_RECONNECT_S[min(attempt, len(_RECONNECT_S) - 1)])
                attempt += 1
        if self._unreachable is not None:
            log.info("database_reachable")
        self._unreachable = None

    def _take(self) -> list[_Waiting]:
        """The next batch, bounded in rows and bytes, at least one."""
        batch: list[_Waiting] = []
        size = 0
        while self._backlog and len(batch) < self._limits.flush_rows:
            next_size = self._backlog[0].delivery.size
            if batch and size + next_size > self._limits.flush_bytes:
                break
            batch.append(self._backlog.popleft())
            size += next_size
        self._backlog_bytes -= size
        return batch

    async def _flush(self, batch: list[_Waiting]) -> None:
        """Commit a batch and answer its requests."""
        try:
            await self._insert(batch)
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            await self._isolate(batch, error)
        except Exception as error:
            unavailable = _as_unavailable(error)
            log.error(
                "flush_failed", reason=unavailable.reason, deliveries=len(batch), exc_info=error
            )
            _refuse(batch, unavailable)
            await self._disconnect()
            raise unavailable from None
        else:
            self._committed(batch)

    async def _insert(self, batch: list[_Waiting]) -> None:
        """Insert a batch within the time limit, a second try over a new connection included."""
        insert = self._insert_or_again(batch)
        await self._in_time(insert, self._limits.flush_timeout_s, "flush_timeout")

    async def _insert_or_again(self, batch: list[_Waiting]) -> None:
        """When the connection breaks, its commit is in doubt: the same rows are sent once more over
        a new one, where those that are there already change nothing."""
        try:
            await self._execute(batch)
        except psycopg.OperationalError:
            if self._connection is None or not self._connection.closed:
                raise
            self._connection = await self._open()
            await self._execute(batch)

    async def _open(self) -> WriterConnection:
        return await self._in_time(
            WriterConnection.open(self._database), _OPEN_TIMEOUT_S, "database_unreachable"
        )

    async def _execute(self, batch: list[_Waiting]) -> None:
        assert self._connection is not None
        await deliveries.insert(
            self._connection,
            [waiting.delivery for waiting in batch],
            queue=queues.LIVE,
            hint_grace_s=self._limits.hint_grace_s,
        )

    async def _in_time(self, work: Coroutine[Any, Any, T], seconds: float, reason: str) -> T:
        """What `work` returns. When it does not end, it is left, with the connection that it used:
        cancelling a statement can take seconds."""
        task = asyncio.create_task(work)
        try:
            done, _ = await asyncio.wait({task}, timeout=seconds)
        except asyncio.CancelledError:
            self._abandon(task)
            raise
        if not done:
            self._abandon(task)
            raise _unavailable(reason)
        return task.result()

    def _abandon(self, work: asyncio.Task[Any]) -> None:
        work.cancel()
        connection, self._connection = self._connection, None

        async def bury() -> None:
            await asyncio.wait({work})
            if connection is not None:
                await connection.close()

        task = asyncio.create_task(bury(), name="abandoned")
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)

    async def _isolate(self, batch: list[_Waiting], error: psycopg.Error) -> None:
        """One row that PostgreSQL refuses must not fail its neighbours: insert them one by one."""
        if len(batch) > 1:
            try:
                for waiting in batch:
                    await self._flush([waiting])
            except StorageUnavailable as unavailable:
                _refuse(batch, unavailable)
                raise
            return
        log.error("delivery_refused", sqlstate=error.sqlstate, request_id=str(batch[0].delivery.id))
        _refuse(batch, _unavailable("refused_by_database"))

    def _committed(self, batch: list[_Waiting]) -> None:
        for waiting in batch:
            if not waiting.committed.done():
                waiting.committed.set_result(None)
        self._on_commit([each.delivery.id for each in batch if each.delivery.rejected is None])

    def _refuse_backlog(self, error: StorageUnavailable) -> None:
        _refuse(self._backlog, error)
        self._backlog.clear()
        self._backlog_bytes = 0

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


def _refuse(batch: Sequence[_Waiting] | deque[_Waiting], error: StorageUnavailable) -> None:
    """An exception each: one for all would hold the frames, and so the bodies, of all who raise
    it."""
    for waiting in batch:
        if not waiting.committed.done():
            waiting.committed.set_exception(StorageUnavailable(str(error), reason=error.reason))


def _unavailable(reason: str) -> StorageUnavailable:
    return StorageUnavailable("The delivery could not be stored; send it again.", reason=reason)


def _as_unavailable(error: Exception) -> StorageUnavailable:
    if isinstance(error, StorageUnavailable):
        return error
    if isinstance(error, UnfitDatabase):
        return _unavailable(error.reason)
    if isinstance(error, psycopg.Error | OSError):
        sqlstate = getattr(error, "sqlstate", None)
        return _unavailable(f"sqlstate_{sqlstate}" if sqlstate else "database_unreachable")
    return _unavailable("internal")
