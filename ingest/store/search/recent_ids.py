"""Which events were seen lately, in bounded memory."""

from collections import OrderedDict
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from ingest.store.search.events import ListedEvent

OVERLAP = timedelta(seconds=15)
"""Events are admitted later than their ids say, so whoever reads new ones goes back this far each
time, and leaves out those that it has seen."""


class RecentIds:
    """The ids of the events that were seen lately."""

    def __init__(self, most: int) -> None:
        """Remember `most` ids, the latest."""
        self._most = most
        self._ids: OrderedDict[UUID, None] = OrderedDict()

    def add_new(self, events: Sequence[ListedEvent]) -> tuple[ListedEvent, ...]:
        """Remember events, and return those that were unknown."""
        new = tuple(event for event in events if event.id not in self._ids)
        self._ids.update((event.id, None) for event in new)
        while len(self._ids) > self._most:
            self._ids.popitem(last=False)
        return new
