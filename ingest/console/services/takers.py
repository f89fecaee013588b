"""Unhandled events that a processor takes by now: what a replay would give a job."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from sqlalchemy import Connection

from ingest.store.pipeline.processors import ProcessorRecord
from ingest.store.reports import unhandled


def of_unhandled(
    connection: Connection, processors: Sequence[ProcessorRecord]
) -> Mapping[str, int]:
    """Return how many of the newest unhandled events are of each type that a processor takes."""
    patterns = [pattern for processor in processors for pattern in processor.types]
    return {
        event_type: events
        for event_type, events in unhandled.by_type(connection).items()
        if any(fnmatchcase(event_type, pattern) for pattern in patterns)
    }
