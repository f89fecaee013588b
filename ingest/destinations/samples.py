"""A sample event for a destination, made as its sender would."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from random import Random
from typing import Any

from ingest.destinations.description import Destination
from ingest.sources.base import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleEvent:
    """An event that was not received; see `ingest.destinations.message.ForwardedEvent`."""

    id: str
    source: str
    event_id: str
    type: str
    occurred_at: datetime | None
    received_at: datetime
    data: dict[str, Any]
    body: bytes
    is_edited: bool = False


def make(
    destination: Destination, sources: Mapping[str, Source], *, random: Random, now: datetime
) -> SampleEvent:
    """Return an event of the first type that the destination is for and a sender has a sample of;
    without one, an event with no data."""
    for slug, source in sources.items():
        if destination.sources and slug not in destination.sources:
            continue
        for event_type in source.samples.types:
            if any(fnmatchcase(event_type, pattern) for pattern in destination.types):
                return _of_source(source, event_type, random, now)
    event_type = destination.types[0].replace("*", "test")
    return SampleEvent(
        id="test",
        source=next(iter(destination.sources), "test"),
        event_id=f"{event_type}:test",
        type=event_type,
        occurred_at=now,
        received_at=now,
        data={},
        body=b"{}",
    )


def _of_source(source: Source, event_type: str, random: Random, now: datetime) -> SampleEvent:
    body = source.samples.make(event_type, random, now)
    envelope = source.parse(body)
    return SampleEvent(
        id="test",
        source=source.slug,
        event_id=f"{envelope.type}:test",
        type=envelope.type,
        occurred_at=envelope.occurred_at,
        received_at=now,
        data=envelope.data,
        body=body,
    )
