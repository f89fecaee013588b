"""Unhandled events that a processor takes by now: what a replay would give a job."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sqlalchemy import Connection

from ingest.store.pipeline.processors import ProcessorRecord
from ingest.store.reports import unhandled

LOOKED_THROUGH = 500
"""Unhandled events, the newest, whose types are read for a page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The newest unhandled events that a processor takes by now."""

    types: tuple[str, ...]
    events: int
    is_least: bool
    """Whether there may be more: not all unhandled events were looked through."""


def of_unhandled(connection: Connection, processors: Sequence[ProcessorRecord]) -> Taken:
    """Return which types of the newest unhandled events a processor takes, and how many events."""
    patterns = [pattern for processor in processors for pattern in processor.types]
    newest = unhandled.by_type(connection, most=LOOKED_THROUGH)
    types = [
        event_type
        for event_type in sorted(newest)
        if any(fnmatchcase(event_type, pattern) for pattern in patterns)
    ]
    return Taken(
        types=tuple(types),
        events=sum(newest[event_type] for event_type in types),
        is_least=sum(newest.values()) >= LOOKED_THROUGH,
    )
