"""The titles of listed events, made of their stored bodies when they are shown."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from ingest.sources.base import Source
from ingest.sources.beginnings import title_of
from ingest.sources.operator import reader
from ingest.sources.titles import Title, shown, title
from ingest.store import arrays
from ingest.store.encryption.opening import to_show
from ingest.store.reports.event_detail import EventHistory
from ingest.store.search.events import ListedEvent
from ingest.store.sql import statement

WHOLE_BYTES = 16 * 1024
"""Bodies up to this size are read whole, also encrypted ones. Of larger ones the beginning is; an
encrypted one, which can only be decrypted whole, is not read."""
BEGINNING_BYTES = 4 * 1024
"""What a title is made of stands there: the first fields tell what a body is about."""

Sources = Mapping[str, Source]


def titled(
    connection: Connection, events: Sequence[ListedEvent], sources: Sources
) -> tuple[ListedEvent, ...]:
    """Return the events of a list with their titles. One whose body is gone, cannot be decrypted or
    gives none is titled by its type."""
    titles = read(connection, [event.id for event in events], sources)
    return tuple(
        replace(event, title=titles.get(event.id) or type_alone(event.type)) for event in events
    )


def read(connection: Connection, events: Collection[UUID], sources: Sources) -> dict[UUID, Title]:
    """Return the titles of events, as far as their bodies give any, by their ids."""
    if not events:
        return {}
    parameters = {
        "ids": arrays.literal(events),
        "first": min(events),
        "last": max(events),
        "whole": WHOLE_BYTES,
        "beginning": BEGINNING_BYTES,
    }
    made = (_title(connection, row, sources) for row in connection.execute(_BODIES, parameters))
    return {event: made_title for event, made_title in made if made_title is not None}


def of_history(sources: Sources, event: EventHistory) -> Title:
    """Return the title of an event that has been read with its first body, if that is there."""
    body = event.deliveries[0].body
    slug = reader(event.source, event.event_id)
    made = None if body is None else title_of(sources, slug, event.type, body)
    return made or type_alone(event.type)


def type_alone(event_type: str) -> Title:
    """Return the title of an event of which only the type is known."""
    return title(shown(event_type) or "(empty type)") or Title(())


def _title(connection: Connection, row: Any, sources: Sources) -> tuple[UUID, Title | None]:
    body = to_show(connection, row.body, delivery=row.id, key=row.body_key).body
    if body is None:
        return row.id, None
    is_whole = row.size <= WHOLE_BYTES
    slug = reader(row.source, row.event_id)
    return row.id, title_of(sources, slug, row.type, body, is_whole=is_whole)


# The bounds tell the planner which days there are: to look at all partitions takes 50 ms where
# their catalogue comes from the disk.
_BODIES = statement(
    """
    SELECT e.id, e.source, e.event_id, e.type, d.body_key, octet_length(d.body) AS size,
           CASE WHEN octet_length(d.body) <= :whole THEN d.body
                WHEN d.body_key IS NULL THEN substring(d.body FROM 1 FOR :beginning) END AS body
    FROM unnest(CAST(:ids AS uuid[])) AS wanted (id)
    CROSS JOIN LATERAL (
        SELECT id, source, event_id, type FROM ingest.events WHERE id = wanted.id LIMIT 1
    ) AS e
    CROSS JOIN LATERAL (
        SELECT body, body_key FROM ingest.deliveries
        WHERE id = wanted.id AND id BETWEEN :first AND :last LIMIT 1
    ) AS d
    WHERE d.body IS NOT NULL
    """
)
