"""Forward events to a developer's machine as they are received, or as they were. They are read and
sent: no job is made, nothing is kept, and nothing is tried again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import Engine

from ingest.destinations import message
from ingest.destinations.message import Message
from ingest.destinations.samples import SampleEvent
from ingest.errors import InvalidEnvelope
from ingest.sources import operator
from ingest.sources.base import Source
from ingest.store import content_types
from ingest.store.search import events
from ingest.store.search.events import ListedEvent
from ingest.store.search.exported_bodies import ExportedBody, bodies
from ingest.store.search.filters import EventFilter
from ingest.store.search.recent_ids import RecentIds, next_start

_BATCH = 50
"""Events whose bodies are in memory at once."""
_REMEMBERED = 200_000
"""Some tens of megabytes; with a backlog many are read again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarding:
    """An event, and what is to be sent of it; or why nothing is."""

    event: ListedEvent
    message: Message | None
    missing: str = ""
    """Why there is no message."""


class Listening:
    """The events of a selection that were received from a time on, each once."""

    def __init__(
        self,
        engine: Engine,
        selection: EventFilter,
        sources: Mapping[str, Source],
        *,
        since: datetime,
        is_raw: bool,
    ) -> None:
        """Read from `engine` what `selection` means; `sources` read the bodies. `is_raw`: send the
        bodies as they were received."""
        self._engine = engine
        self._selection = selection
        self._sources = sources
        self._is_raw = is_raw
        self._first = max(filter(None, (since, selection.since)))
        self._from = self._first
        self._seen = RecentIds(_REMEMBERED)

    def new(self, now: datetime) -> Iterator[Forwarding]:
        """Yield what is there and was not yielded before, the oldest first. What is received while
        it is read is among it. What waits to be admitted is yielded once it is, if that takes no
        longer than `recent_ids.LATEST` and no more than `_REMEMBERED` newer ones come before it."""
        with self._engine.connect() as connection:
            following = next_start(connection, now)
        selection = replace(self._selection, since=self._from)
        batches = events.batches(self._engine, selection, sizes=(_BATCH, _BATCH), oldest_first=True)
        for batch in batches:
            yield from self._forwardings(self._seen.add_new(batch))
        self._from = max(self._first, self._seen.since, following)

    def _forwardings(self, found: Sequence[ListedEvent]) -> Iterator[Forwarding]:
        if not found:
            return
        with self._engine.connect() as connection:
            stored = bodies(connection, [event.id for event in found])
            content_types_by_id = {
                event.id: content_types.of(connection, event.id) for event in found if self._is_raw
            }
        for event in found:
            yield self._forwarding(event, stored[event.id], content_types_by_id)

    def _forwarding(
        self, event: ListedEvent, stored: ExportedBody, content_types_by_id: Mapping[UUID, str]
    ) -> Forwarding:
        if stored.body is None:
            return Forwarding(event=event, message=None, missing=stored.missing or "no body")
        if self._is_raw:
            raw = Message(body=stored.body, content_type=content_types_by_id[event.id])
            return Forwarding(event=event, message=raw)
        slug = operator.reader(event.source, event.event_id)
        source = self._sources.get(slug)
        if source is None:
            return Forwarding(event=event, message=None, missing=f"no source {slug} is configured")
        try:
            envelope = source.parse(stored.body)
        except InvalidEnvelope as error:
            return Forwarding(event=event, message=None, missing=str(error))
        told = SampleEvent(
            id=str(event.id),
            source=slug,
            event_id=event.event_id,
            type=event.type,
            occurred_at=envelope.occurred_at,
            received_at=event.received_at,
            data=envelope.data,
            body=stored.body,
            is_edited=event.source == operator.SLUG,
        )
        return Forwarding(event=event, message=message.of_event(told))
