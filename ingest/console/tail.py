"""The live tail: one reader of the ledger for all who watch, and none when nobody does."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ingest import telemetry
from ingest.store import listing
from ingest.store.listing import ListedEvent
from ingest.store.selection import Selection

INTERVAL_S = 0.5
READ_LIMIT = 200
"""Events that one reading takes; when more came, older ones are passed over, and that is said."""
_OVERLAP = timedelta(seconds=15)
"""Events are admitted later than their ids say; so far back each reading looks again."""
_WAITING_LIMIT = 50
"""Readings that may wait for a viewer that does not keep up."""

log = telemetry.logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """What one reading found."""

    events: Sequence[ListedEvent] = ()
    """Oldest first."""
    passed_over: bool = False
    """More had come than one reading takes, or the viewer did not keep up."""


class Tail:
    """Reads what is new every half second while somebody watches."""

    def __init__(self, engine: Engine, *, clock: Callable[[], float]) -> None:
        """`clock` gives Unix time in seconds."""
        self._engine = engine
        self._clock = clock
        self._viewers: set[asyncio.Queue[Arrived]] = set()
        self._reader: asyncio.Task[None] | None = None
        self._seen: OrderedDict[UUID, None] = OrderedDict()

    @property
    def viewers(self) -> int:
        """How many watch."""
        return len(self._viewers)

    async def watch(self) -> AsyncGenerator[Arrived, None]:
        """What arrives from now on, as it is read; often nothing, so that whoever has left is
        noticed. What is admitted more than 15 seconds after its receipt is not seen."""
        queue: asyncio.Queue[Arrived] = asyncio.Queue(_WAITING_LIMIT)
        self._viewers.add(queue)
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read_all(), name="tail")
        try:
            while True:
                yield await queue.get()
        finally:
            self._viewers.discard(queue)

    async def close(self) -> None:
        """Stop reading."""
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader

    async def _read_all(self) -> None:
        begins = datetime.fromtimestamp(self._clock(), UTC)
        self._seen.clear()
        while self._viewers:
            found = Arrived()
            try:
                found = await asyncio.to_thread(self._read, begins)
            except SQLAlchemyError as error:
                log.warning("tail_waits", reason=type(error).__name__)
            for queue in self._viewers:
                if queue.full():
                    queue.get_nowait()
                    found = replace(found, passed_over=True)
                queue.put_nowait(found)
            await asyncio.sleep(INTERVAL_S)

    def _read(self, begins: datetime) -> Arrived:
        since = max(begins, datetime.fromtimestamp(self._clock(), UTC) - _OVERLAP)
        with self._engine.connect() as connection:
            page = listing.page(connection, Selection(since=since), limit=READ_LIMIT)
        fresh = [event for event in page.events if event.id not in self._seen]
        for event in fresh:
            self._seen[event.id] = None
        while len(self._seen) > 50 * READ_LIMIT:
            self._seen.popitem(last=False)
        is_full = len(fresh) == len(page.events) == READ_LIMIT
        return Arrived(events=tuple(reversed(fresh)), passed_over=is_full)
