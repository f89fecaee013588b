"""Which events are new to whoever reads them again and again, in bounded memory."""

import heapq
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection

from ingest import ids
from ingest.store.search.events import ListedEvent
from ingest.store.sql import statement

OVERLAP = timedelta(seconds=15)
"""Events are admitted later than their ids say, so whoever reads new ones goes back this far each
time, and leaves out those that it has seen."""
LATEST = timedelta(hours=1)
"""Events that are admitted later than this are not waited for: one that never is would have all
that came after it read for ever."""

# The primary key holds the receipt. So the first entry says it, however many there are.
_OLDEST_UNADMITTED = statement(
    "SELECT delivery FROM ingest.unadmitted WHERE delivery >= :low ORDER BY delivery LIMIT 1"
)


def next_start(connection: Connection, now: datetime) -> datetime:
    """Return from which receipt on to read the next time: before that all are admitted that ever
    are, but for those that took longer than `LATEST`.

    To be asked before events are read: what is admitted meanwhile may not be among them.
    """
    low = ids.first_id(now - LATEST)
    oldest = connection.execute(_OLDEST_UNADMITTED, {"low": low}).scalar()
    return min(now - OVERLAP, now if oldest is None else ids.received_at(oldest))


class RecentIds:
    """The ids of the events that were seen, as far as they are remembered."""

    def __init__(self, most: int) -> None:
        """Remember `most` ids, those of the events that were received last. What was received
        before them counts as seen."""
        self._most = most
        self._ids: set[UUID] = set()
        self._in_order: list[UUID] = []
        """A heap."""
        self._forgotten = UUID(int=0)

    @property
    def since(self) -> datetime:
        """From when on an event may be new."""
        return ids.received_at(self._forgotten)

    def add_new(self, events: Sequence[ListedEvent]) -> tuple[ListedEvent, ...]:
        """Remember events, and return those that were unknown."""
        new = tuple(
            event for event in events if event.id > self._forgotten and event.id not in self._ids
        )
        for event in new:
            self._ids.add(event.id)
            heapq.heappush(self._in_order, event.id)
        while len(self._in_order) > self._most:
            self._forgotten = heapq.heappop(self._in_order)
            self._ids.discard(self._forgotten)
        return new
