"""The live feed: one task reads new events for all viewers, and none reads while nobody watches."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ingest import logs
from ingest.sources.base import Source
from ingest.store.search import events
from ingest.store.search.events import ListedEvent
from ingest.store.search.filters import EventFilter
from ingest.store.search.recent_ids import OVERLAP, RecentIds, next_start
from ingest.store.search.titles import titled

INTERVAL_S = 0.5
READ_LIMIT = 200
"""Events in one batch. When more arrived, the older ones are left out and the batch says so."""
_MAX_REMEMBERED = 50 * READ_LIMIT
_MAX_PENDING = 50
"""Batches that may wait for a slow viewer."""

log = logs.logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The new events of one read."""

    events: Sequence[ListedEvent] = ()
    """Oldest first."""
    truncated: bool = False
    """Whether events are missing: too many arrived, or the viewer was too slow."""


class LiveFeed:
    """Reads new events every half second while somebody watches."""

    def __init__(
        self, engine: Engine, sources: Mapping[str, Source], *, clock: Callable[[], float]
    ) -> None:
        """`sources` title the events; `clock` returns Unix time in seconds."""
        self._engine = engine
        self._sources = sources
        self._clock = clock
        self._viewers: set[asyncio.Queue[Batch]] = set()
        self._reader: asyncio.Task[None] | None = None

    @property
    def viewers(self) -> int:
        """Return the number of viewers."""
        return len(self._viewers)

    async def watch(self) -> AsyncGenerator[Batch, None]:
        """Yield batches of new events, and no event twice.

        The first batch reaches back a little, since events arrive while the page loads. Batches are
        often empty, so that the caller notices a viewer who left. An event that is admitted late is
        seen if that is within an hour of its receipt, and it is among the newest `READ_LIMIT` then.
        """
        queue: asyncio.Queue[Batch] = asyncio.Queue(_MAX_PENDING)
        self._viewers.add(queue)
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read_all(), name="live feed")
        sent = RecentIds(_MAX_REMEMBERED)
        try:
            first, _ = await asyncio.to_thread(self._read, self._now() - OVERLAP)
            batch = replace(first, events=await asyncio.to_thread(self._titled, first.events))
            while True:
                yield replace(batch, events=sent.add_new(batch.events))
                batch = await queue.get()
        finally:
            self._viewers.discard(queue)

    async def close(self) -> None:
        """Stop reading."""
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader

    async def _read_all(self) -> None:
        seen = RecentIds(_MAX_REMEMBERED)
        since = self._now() - OVERLAP
        while self._viewers:
            recent, since = await asyncio.to_thread(self._read, since)
            new = seen.add_new(recent.events)
            events_of_batch = await asyncio.to_thread(self._titled, new)
            batch = Batch(events=events_of_batch, truncated=len(new) == READ_LIMIT)
            for queue in self._viewers:
                if queue.full():
                    queue.get_nowait()
                    queue.put_nowait(replace(batch, truncated=True))
                else:
                    queue.put_nowait(batch)
            await asyncio.sleep(INTERVAL_S)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def _read(self, since: datetime) -> tuple[Batch, datetime]:
        """Return the newest events received since then, and from when on to read the next time."""
        try:
            with self._engine.connect() as connection:
                following = next_start(connection, self._now())
                page = events.page(connection, EventFilter(since=since), limit=READ_LIMIT)
        except SQLAlchemyError as error:
            log.warning("live_feed_waits", reason=type(error).__name__)
            return Batch(), since
        return Batch(events=tuple(reversed(page.events))), following

    def _titled(self, new: Sequence[ListedEvent]) -> Sequence[ListedEvent]:
        """Return new events with their titles, or without where PostgreSQL is away."""
        try:
            with self._engine.connect() as connection:
                return titled(connection, new, self._sources)
        except SQLAlchemyError as error:
            log.warning("live_feed_waits", reason=type(error).__name__)
            return new
