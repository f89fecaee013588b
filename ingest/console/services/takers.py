"""Unhandled events that a processor of a live worker takes: what a replay would give a job."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sqlalchemy import Connection

from ingest.store.pipeline.processors import ProcessorRecord
from ingest.store.reports import heartbeats, unhandled

LOOKED_THROUGH = 500
"""Unhandled events, the newest, whose types are read for a page at most."""
BUDGET_S = 0.01
"""Seconds for those after the first hundred: all, if they are in memory."""
MOST_TYPES = 10
"""That one replay is offered for, those of the most events: its search names them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The newest unhandled events that a processor takes by now."""

    types: tuple[str, ...]
    events: int
    is_least: bool
    """Whether there may be more: not all unhandled events were looked through."""


def of_unhandled(
    connection: Connection,
    processors: Sequence[ProcessorRecord],
    *,
    destinations: Container[str] = (),
) -> Taken:
    """Return which types of the newest unhandled events a processor takes, and how many events.

    Those of `destinations` are left out: which sources' events they take is not registered.
    """
    served = {name for name, _ in heartbeats.served(connection) or ()}
    patterns = [
        pattern
        for processor in processors
        if processor.name in served and processor.name not in destinations
        for pattern in processor.types
    ]
    newest, is_whole = unhandled.newest(connection, most=LOOKED_THROUGH, budget_s=BUDGET_S)
    types = [
        event_type
        for event_type in sorted(newest, key=lambda of: -newest[of])
        if any(fnmatchcase(event_type, pattern) for pattern in patterns)
    ]
    offered = types[:MOST_TYPES]
    return Taken(
        types=tuple(offered),
        events=sum(newest[event_type] for event_type in offered),
        is_least=len(types) > MOST_TYPES or not is_whole,
    )
