"""Commits deliveries in groups: those that arrive during a flush make the next one.

There is one connection, and one statement a flush. A delivery that arrives while nothing is flushed
does not wait. `append` returns when the delivery is committed: only then may the request be
answered 200.

The file is over 400 lines because one loop owns the connection, the backlog, the batch and what is
known of the storage. Apart they would share all of that state.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import psycopg

from ingest import logs, queues
from ingest.errors import StorageUnavailable
from ingest.ids import RANDOM_BYTES, delivery_id
from ingest.receiver.commits import Commits
from ingest.sources.base import EventIdentity
from ingest.store import causes, privileges
from ingest.store.address import Database
from ingest.store.causes import Cause
from ingest.store.encryption import gate
from ingest.store.engine import WriterConnection
from ingest.store.pipeline import deliveries
from ingest.store.pipeline.deliveries import Delivery

if TYPE_CHECKING:
    from ingest.tracing.requests import RequestTraces

_RECONNECT_S = (0.05, 0.1, 0.2, 0.5)
# All of it: the look-up of the name, each host of the address, the login, and the first answer,
# which a pooler without a server behind it never gives.
_OPEN_TIMEOUT_S = 5.0
_FRESH_S = 1.0
"""So long a commit, or a trial, answers for it: probes cost at most one trial a second."""
_CLOSING = Cause(reason="shutting_down", sentence="The receiver is shutting down.")
_FULL = Cause(reason="backlog_full", sentence="Too many deliveries wait already.")
_TRIAL = EventIdentity(event_id="", type="", fingerprint=b"")

T = TypeVar("T")

log = logs.logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What bounds the writer."""

    flush_rows: int
    flush_bytes: int
    flush_timeout_s: float
    backlog_rows: int
    backlog_bytes: int
    dispatch_grace_s: float


@dataclass(slots=True)
class _Waiting:
    delivery: Delivery
    size: int
    rows: int
    committed: asyncio.Future[None]


class DeliveryWriter:
    """Commits deliveries in groups."""

    def __init__(
        self,
        database: Database,
        limits: Limits,
        *,
        on_commit: Callable[[Sequence[UUID]], None],
        commits: Commits | None = None,
        traces: "RequestTraces | None" = None,
        clock: Callable[[], float] = time.time,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Make a writer that is yet to be started.

        Args:
            database: where to.
            limits: what bounds it.
            on_commit: gets the ids of committed deliveries and elements that are events; it must
                not block.
            commits: counts them; default: nobody reads what is counted.
            traces: traces them; default: nobody does.
            clock: Unix time in seconds, for the ids of trials.
            random: as `os.urandom`, likewise.
        """
        self._database = database
        self._limits = limits
        self._on_commit = on_commit
        self._commits = commits or Commits({}, clock=time.monotonic)
        self._traces = traces
        self._backlog: deque[_Waiting] = deque()
        self._backlog_bytes = 0
        self._backlog_rows = 0
        self._arrived = asyncio.Event()
        self._connection: WriterConnection | None = None
        self._clock = clock
        self._random = random
        self._cause: Cause | None = None
        self._told: Cause | None = None
        self._is_told_of_commit = False
        self._worked_at = -_FRESH_S
        self._probe: asyncio.Future[None] | None = None
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._abandoned: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start the loop. It starts without a database too: `append` raises until there is one."""
        self._task = asyncio.create_task(self._run(), name="writer")

    async def append(self, delivery: Delivery) -> None:
        """Return when `delivery` is committed.

        Raises:
            StorageUnavailable: it was not committed, or nobody knows; the sender must send it
                again.
        """
        await self.submit(delivery)

    def submit(self, delivery: Delivery) -> asyncio.Future[None]:
        """Return a future that is done when `delivery` is committed, or fails as `append` does.

        Raises:
            StorageUnavailable: the delivery cannot even wait for that.
        """
        if self._cause is not None:
            raise _unavailable(self._cause)
        if self._closing:
            raise StorageUnavailable(_CLOSING.sentence, reason=_CLOSING.reason)
        size, rows = delivery.size, delivery.rows
        if self._is_full(size):
            raise StorageUnavailable(_FULL.sentence, reason=_FULL.reason)
        committed = asyncio.get_running_loop().create_future()
        self._backlog.append(_Waiting(delivery, size, rows, committed))
        self._backlog_bytes += size
        self._backlog_rows += rows
        self._arrived.set()
        return committed

    @property
    def waiting(self) -> tuple[int, int]:
        """Return how many rows wait for a commit, and their bytes."""
        return self._backlog_rows, self._backlog_bytes

    @property
    def works(self) -> bool:
        """Return whether a delivery may be appended now, as far as the last commit or trial
        told."""
        return self._refuses() is None

    async def problem(self) -> Cause | None:
        """Return why a delivery would be refused now, or None.

        The answer is the writer's own: its last commit, or a trial over the connection that it
        commits on. Those who ask within a second share it.
        """
        if self._refuses() is None and not self._is_fresh():
            if self._probe is None:
                self._probe = asyncio.get_running_loop().create_future()
                self._arrived.set()
            await asyncio.wait({self._probe})
        return self._refuses()

    def _refuses(self) -> Cause | None:
        if self._cause is not None:
            return self._cause
        if self._closing:
            return _CLOSING
        return _FULL if self._is_full(1) else None

    def _is_full(self, size: int) -> bool:
        """Return whether a delivery of so many bytes has no room. One that is larger than all of
        it has, while nothing else waits."""
        return self._backlog_rows > 0 and (
            self._backlog_rows >= self._limits.backlog_rows
            or self._backlog_bytes + size > self._limits.backlog_bytes
        )

    def _is_fresh(self) -> bool:
        return asyncio.get_running_loop().time() - self._worked_at < _FRESH_S

    async def close(self) -> None:
        """Refuse what comes, commit what waits, close every connection."""
        self._closing = True
        self._arrived.set()
        if self._task is not None:
            await self._task
        await self._disconnect()
        for abandoned in self._abandoned:
            abandoned.cancel()
        await asyncio.gather(*self._abandoned, return_exceptions=True)

    async def _run(self) -> None:
        """Flush until closed. A failure of any kind is answered; it never ends this loop."""
        while not (self._closing and not self._backlog):
            try:
                if self._connection is None:
                    await self._connect()
                await self._arrived.wait()
                self._arrived.clear()
                while self._backlog:
                    batch = self._take()
                    with nullcontext() if self._traces is None else self._traces.commit(batch):
                        await self._flush(batch)
                if self._probe is not None and not self._is_fresh():
                    await self._try()
                self._answer_probe()
            except StorageUnavailable as error:
                self._refuse_backlog(error)
        self._answer_probe()

    async def _connect(self) -> None:
        """Connect, with growing pauses, until a trial succeeds. Meanwhile appends are refused."""
        attempt = 0
        while self._connection is None:
            try:
                await self._try()
            except StorageUnavailable as error:
                self._refuse_backlog(error)
                self._answer_probe()
                if self._closing:
                    raise
                await asyncio.sleep(_RECONNECT_S[min(attempt, len(_RECONNECT_S) - 1)])
                attempt += 1

    async def _try(self) -> None:
        """Store a delivery and take it back, over the connection that is there or a new one.

        Raises:
            StorageUnavailable: it does not work, and why is noted.
        """
        now = self._clock()
        trial = Delivery(
            id=delivery_id(int(now * 1000), self._random(RANDOM_BYTES)),
            source="",
            received_at=datetime.fromtimestamp(now, UTC),
            key_id="",
            headers="[]",
            body=b"",
            name=_TRIAL,
            rejected=None,
        )
        try:
            if self._connection is None:
                self._connection = await self._open()
            await self._in_time(
                self._once_more(lambda connection, _: deliveries.try_to_insert(connection, trial)),
                self._limits.flush_timeout_s,
                "flush_timeout",
            )
        except Exception as error:
            self._cause = cause = await self._fail(error, in_commit=False)
            raise _unavailable(cause) from None
        self._works(committed=False)

    async def _fail(self, error: Exception, *, in_commit: bool) -> Cause:
        """Find out why nothing could be stored, log it, and give the connection up."""
        if in_commit:
            self._commits.failed()
        cause = await self._explain(error)
        self._worked_at = -_FRESH_S
        self._is_told_of_commit = self._is_told_of_commit or in_commit
        if self._told != cause:
            log.error(
                "storage_fails",
                reason=cause.reason,
                cause=cause.sentence,
                exc_info=None if cause.is_known else error,
            )
            self._told = cause
        await self._disconnect()
        return cause

    async def _explain(self, error: Exception) -> Cause:
        cause = causes.explain(error, self._database)
        if cause.reason != "privilege_missing" or self._connection is None:
            return cause
        lacks: Coroutine[Any, Any, list[str]] = privileges.lacking_of_writer(self._connection)
        try:
            lacking = await self._in_time(lacks, self._limits.flush_timeout_s, "flush_timeout")
        except Exception:  # the first cause is good enough
            return cause
        return causes.privileges_missing(lacking, self._database) if lacking else cause

    def _works(self, *, committed: bool) -> None:
        """Note that a commit, or a trial, has succeeded.

        What a commit found and no trial does (a standby that must confirm and is away) is over when
        a commit succeeds: otherwise each flush would log it.
        """
        self._worked_at = asyncio.get_running_loop().time()
        self._cause = None
        if self._told is not None and (committed or not self._is_told_of_commit):
            log.info("storage_works")
            self._told, self._is_told_of_commit = None, False
        self._answer_probe()

    def _answer_probe(self) -> None:
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.set_result(None)

    def _take(self) -> list[_Waiting]:
        """Return the next batch: at least one delivery, bounded in rows and bytes."""
        batch: list[_Waiting] = []
        size = rows = 0
        while self._backlog and rows < self._limits.flush_rows:
            waiting = self._backlog[0]
            if batch and size + waiting.size > self._limits.flush_bytes:
                break
            batch.append(self._backlog.popleft())
            size += waiting.size
            rows += waiting.rows
        self._backlog_bytes -= size
        self._backlog_rows -= rows
        return batch

    async def _flush(self, batch: list[_Waiting]) -> None:
        """Commit a batch and answer its requests."""
        began = time.perf_counter()
        try:
            await self._insert(batch)
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            await self._isolate(batch, error)
        except Exception as error:
            unavailable = _unavailable(await self._fail(error, in_commit=True))
            _refuse(batch, unavailable)
            raise unavailable from None
        else:
            self._committed(batch)
            self._commits.succeeded(
                [waiting.delivery for waiting in batch], time.perf_counter() - began
            )

    async def _insert(self, batch: list[_Waiting]) -> None:
        """Insert a batch within the time limit, a second try over a new connection included."""
        insert = self._once_more(partial(self._execute, batch))
        await self._in_time(insert, self._limits.flush_timeout_s, "flush_timeout")

    async def _once_more(self, run: Callable[[WriterConnection, bool], Awaitable[None]]) -> None:
        """Run over the connection, and once more over a new one when it breaks: its commit is in
        doubt then, and rows that are there already change nothing. `run` is told whether it runs
        for the second time."""
        connection = self._connection
        assert connection is not None
        try:
            await run(connection, False)
        except psycopg.OperationalError:
            if self._connection is not connection or not connection.closed:
                raise
            self._connection = await self._open()
            await run(self._connection, True)

    async def _open(self) -> WriterConnection:
        return await self._in_time(self._open_to_write(), _OPEN_TIMEOUT_S, "database_timeout")

    async def _open_to_write(self) -> WriterConnection:
        connection = await WriterConnection.open(self._database)
        try:
            await gate.begin_writing(connection)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _execute(
        self, batch: list[_Waiting], connection: WriterConnection, is_repeat: bool
    ) -> None:
        await deliveries.insert(
            connection,
            [waiting.delivery for waiting in batch],
            queue=queues.LIVE,
            dispatch_grace_s=self._limits.dispatch_grace_s,
            is_repeat=is_repeat,
        )

    async def _in_time(self, work: Coroutine[Any, Any, T], seconds: float, reason: str) -> T:
        """Return what `work` returns. Work that takes too long is abandoned with its connection:
        cancelling a statement can take seconds."""
        task = asyncio.create_task(work)
        try:
            done, _ = await asyncio.wait({task}, timeout=seconds)
        except asyncio.CancelledError:
            self._abandon(task)
            raise
        if not done:
            self._abandon(task)
            raise StorageUnavailable(
                f"The database {self._database} does not answer within {seconds:g} s.",
                reason=reason,
            )
        return task.result()

    def _abandon(self, work: asyncio.Task[Any]) -> None:
        work.cancel()
        connection, self._connection = self._connection, None

        async def bury() -> None:
            try:
                await asyncio.wait({work})
            except asyncio.CancelledError:
                work.cancel()  # the second time, psycopg no longer waits for the server
                await asyncio.wait({work})
                raise
            finally:
                if connection is not None:
                    await connection.close()

        task = asyncio.create_task(bury(), name="abandoned")
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)

    async def _isolate(self, batch: list[_Waiting], error: psycopg.Error) -> None:
        """Insert one by one: a row that PostgreSQL refuses must not fail its neighbours.

        None of them is stored, though the batch may have been sent twice: what was committed the
        first time would not be refused the second.
        """
        if len(batch) > 1:
            try:
                for waiting in batch:
                    await self._flush([waiting])
            except StorageUnavailable as unavailable:
                _refuse(batch, unavailable)
                raise
            return
        log.error("delivery_refused", sqlstate=error.sqlstate, request_id=str(batch[0].delivery.id))
        _refuse(batch, StorageUnavailable(_SEND_AGAIN, reason="refused_by_database"))

    def _committed(self, batch: list[_Waiting]) -> None:
        self._works(committed=True)
        for waiting in batch:
            if not waiting.committed.done():
                waiting.committed.set_result(None)
        self._on_commit([event.id for waiting in batch for event in waiting.delivery.events()])

    def _refuse_backlog(self, error: StorageUnavailable) -> None:
        _refuse(self._backlog, error)
        self._backlog.clear()
        self._backlog_bytes = self._backlog_rows = 0

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


def _refuse(batch: Sequence[_Waiting] | deque[_Waiting], error: StorageUnavailable) -> None:
    """Refuse each delivery with an exception of its own. One for all would hold the frames, and so
    the bodies, of all who raise it."""
    for waiting in batch:
        if not waiting.committed.done():
            waiting.committed.set_exception(StorageUnavailable(str(error), reason=error.reason))


_SEND_AGAIN = "The delivery could not be stored; send it again."


def _unavailable(cause: Cause) -> StorageUnavailable:
    """Return what a sender is told: the reason, and nothing of our database."""
    return StorageUnavailable(_SEND_AGAIN, reason=cause.reason)
