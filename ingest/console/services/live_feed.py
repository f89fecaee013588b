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

from ingest import logs
from ingest.store.search import events as listing
from ingest.store.search.events import ListedEvent
from ingest.store.search.filters import EventFilter

INTERVAL_S = 0.5
READ_LIMIT = 200
"""Events that one reading takes; when more came, older ones are passed over, and that is said."""
_OVERLAP = timedelta(seconds=15)
"""Events are admitted later than their ids say; so far back each reading looks again."""
_REMEMBERED = 50 * READ_LIMIT
_WAITING_LIMIT = 50
"""Readings that may wait for a viewer that does not keep up."""

log = logs.logger(__name__)


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

    @property
    def viewers(self) -> int:
        """How many watch."""
        return len(self._viewers)

    async def watch(self) -> AsyncGenerator[Arrived, None]:
        """What arrives, from a little before now on, since a page was on its way meanwhile.
        Often nothing, so that whoever has left is noticed; no event twice. What is admitted more
        than 15 seconds after its receipt is not seen."""
        queue: asyncio.Queue[Arrived] = asyncio.Queue(_WAITING_LIMIT)
        self._viewers.add(queue)
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read_all(), name="tail")
        sent = _Recent()
        try:
            found = await asyncio.to_thread(self._read)
            while True:
                yield replace(found, events=sent.fresh(found.events))
                found = await queue.get()
        finally:
            self._viewers.discard(queue)

    async def close(self) -> None:
        """Stop reading."""
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader

    async def _read_all(self) -> None:
        seen = _Recent()
        while self._viewers:
            read = await asyncio.to_thread(self._read)
            fresh = seen.fresh(read.events)
            found = Arrived(events=fresh, passed_over=len(fresh) == READ_LIMIT)
            for queue in self._viewers:
                if queue.full():
                    queue.get_nowait()
                    queue.put_nowait(replace(found, passed_over=True))
                else:
                    queue.put_nowait(found)
            await asyncio.sleep(INTERVAL_S)

    def _read(self) -> Arrived:
        """The newest events of the last seconds."""
        since = datetime.fromtimestamp(self._clock(), UTC) - _OVERLAP
        try:
            with self._engine.connect() as connection:
                page = listing.page(connection, EventFilter(since=since), limit=READ_LIMIT)
        except SQLAlchemyError as error:
            log.warning("tail_waits", reason=type(error).__name__)
            return Arrived()
        return Arrived(events=tuple(reversed(page.events)))


class _Recent:
    """Which events have been, of late."""

    def __init__(self) -> None:
        self._ids: OrderedDict[UUID, None] = OrderedDict()

    def fresh(self, events: Sequence[ListedEvent]) -> tuple[ListedEvent, ...]:
        """Those that have not been, and now have."""
        found = tuple(event for event in events if event.id not in self._ids)
        self._ids.update((event.id, None) for event in found)
        while len(self._ids) > _REMEMBERED:
            self._ids.popitem(last=False)
        return found
