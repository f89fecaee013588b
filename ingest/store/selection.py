"""Which events somebody means: one filter for the lists, the counts and the replays."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from ingest import strict_json
from ingest.errors import NotFound
from ingest.ids import first_id
from ingest.sources.source import join_event_id
from ingest.store.tables import STATES

UNHANDLED = "unhandled"
EVENT_STATES = (*STATES, UNHANDLED)

# The state of an event is that of its jobs, the one that most needs a person first.
STATE_OF_EVENT = """
    SELECT CASE
        WHEN count(*) = 0 THEN 'unhandled'
        WHEN bool_or(state = 'dead') THEN 'dead'
        WHEN bool_or(state = 'retrying') THEN 'retrying'
        WHEN bool_or(state = 'running') THEN 'running'
        WHEN bool_or(state = 'pending') THEN 'pending'
        ELSE 'succeeded'
    END AS state
    FROM jobs WHERE event = events.id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Conditions that all must hold; what is None or empty does not count."""

    ids: tuple[UUID, ...] = ()
    types: tuple[str, ...] = ()
    """Event types; `*` stands for anything."""
    processor: str | None = None
    state: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    search: str | None = None
    """A text in the event id or in the raw body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """SQL conditions on `events`, and the values that they name."""

    conditions: tuple[str, ...]
    parameters: dict[str, Any]

    @property
    def sql(self) -> str:
        """The conditions joined, `true` if there is none."""
        return " AND ".join(self.conditions) or "true"


def where(selection: Selection) -> Where:
    """The part of a selection that speaks of events: all but state and processor."""
    found: list[tuple[str, dict[str, Any]]] = []
    if selection.ids:
        found.append(("events.id = ANY(CAST(:ids AS uuid[]))", {"ids": list(selection.ids)}))
    if selection.types:
        patterns = [_like(each) for each in selection.types]
        found.append(("events.type LIKE ANY(CAST(:types AS text[]))", {"types": patterns}))
    if selection.since is not None:
        found.append(("events.id >= CAST(:since AS uuid)", {"since": first_id(selection.since)}))
    if selection.until is not None:
        found.append(("events.id < CAST(:until AS uuid)", {"until": first_id(selection.until)}))
    if selection.search:
        found.append(_search(selection.search))
    return Where(
        conditions=tuple(condition for condition, _ in found),
        parameters={name: value for _, values in found for name, value in values.items()},
    )


def named_by(connection: Connection, name: str) -> tuple[UUID, ...]:
    """The events that `name` names exactly: by their id at the sender, or by that of what they are
    about (`790` for `order.created:790`)."""
    known = connection.execute(_NAMES).all()
    candidates = [name, *(join_event_id(row.name, name) for row in known if row.what == "type")]
    sources = [row.name for row in known if row.what == "source"]
    return tuple(
        connection.execute(_NAMED, {"sources": sources, "candidates": candidates}).scalars()
    )


def resolve(connection: Connection, names: Sequence[str]) -> tuple[UUID, ...]:
    """The ids of the events that `names` mean: an event's id, its id at the sender, or a
    delivery's.

    Raises:
        NotFound: one of them means nothing.
    """
    return tuple(event for name in names for event in _resolve(connection, name))


def _resolve(connection: Connection, name: str) -> list[UUID]:
    try:
        identity = UUID(name)
    except ValueError:
        found = connection.execute(_BY_EVENT_ID, {"event_id": name}).scalars()
    else:
        found = connection.execute(_BY_ID, {"id": identity}).scalars()
    events = list(found)
    if not events:
        raise NotFound(f"No event answers to {name}.", reason="not_found")
    return events


def _search(needle: str) -> tuple[str, dict[str, Any]]:
    """A body may spell a text as UTF-8 or escaped; it is searched for as it would be in both."""
    return (
        """(events.event_id ILIKE :like OR EXISTS (
            SELECT FROM deliveries WHERE deliveries.id = events.id AND (
                position(CAST(:raw AS bytea) IN body) > 0
                OR position(CAST(:escaped AS bytea) IN body) > 0)))""",
        {
            "like": f"%{_escape(needle)}%",
            "raw": needle.encode(),
            "escaped": strict_json.canonical(needle)[1:-1],
        },
    )


def _like(pattern: str) -> str:
    return _escape(pattern).replace("*", "%")


def _escape(literal: str) -> str:
    return literal.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


# Which types there are, from step to step through an index (see ingest.store.lanes).
TYPES = """
    known AS (
        (SELECT type FROM events ORDER BY type LIMIT 1)
        UNION ALL
        SELECT (SELECT type FROM events WHERE type > known.type ORDER BY type LIMIT 1)
        FROM known WHERE known.type IS NOT NULL
    )
"""
_NAMES = text(
    f"""
    WITH RECURSIVE {TYPES}, origin AS (
        (SELECT source AS slug FROM events ORDER BY source LIMIT 1)
        UNION ALL
        SELECT (SELECT e.source FROM events e WHERE e.source > origin.slug
                ORDER BY e.source LIMIT 1)
        FROM origin WHERE origin.slug IS NOT NULL
    )
    SELECT 'type' AS what, type AS name FROM known WHERE type IS NOT NULL
    UNION ALL
    SELECT 'source', slug FROM origin WHERE slug IS NOT NULL
    """
)
_NAMED = text(
    """
    SELECT id FROM events
    WHERE source = ANY(CAST(:sources AS text[])) AND event_id = ANY(CAST(:candidates AS text[]))
    ORDER BY id DESC
    """
)
_BY_ID = text(
    "SELECT id FROM events WHERE id = :id UNION SELECT event FROM duplicates WHERE delivery = :id"
)
_BY_EVENT_ID = text("SELECT id FROM events WHERE event_id = :event_id")
