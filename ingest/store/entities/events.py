"""The events that concern one entity: a page of them in time order, with their bodies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection

from ingest.store.encryption.opening import to_show
from ingest.store.search.id_range import Span
from ingest.store.search.related import Times, concerns, opened_mentions
from ingest.store.sql import statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A page of the events that concern an entity."""

    ids: tuple[UUID, ...]
    """In the order that was asked for."""
    sources: Mapping[str, int]
    """How many events of each source concern it."""
    has_more: bool
    """Whether there are further ones in that direction."""


def find(
    connection: Connection,
    kind: str,
    value: str,
    *,
    times: Times,
    span: Span,
    source: str | None,
    limit: int,
) -> Found:
    """Return the next `limit` events of a span that concern an entity.

    Args:
        connection: in whose transaction to read.
        kind: of the entity.
        value: what it is called.
        times: when the events were received.
        span: which of them, and in which direction.
        source: only those of one sender; None: of all.
        limit: how many.
    """
    condition, values = concerns(kind, value, "about", times)
    values |= opened_mentions(connection, kind, value, "about", times)
    query = f"""
        WITH concerned AS MATERIALIZED (SELECT id, source FROM ingest.events WHERE {condition})
        SELECT page.id, (
            SELECT jsonb_object_agg(source, number) FROM (
                SELECT source, count(*) AS number FROM concerned GROUP BY source
            ) AS counted
        ) AS sources
        FROM (SELECT) AS always LEFT JOIN (
            SELECT id FROM concerned
            WHERE id >= :low AND id < :high
              AND (CAST(:source AS text) IS NULL OR source = :source)
            ORDER BY id {span.order} LIMIT :limit + 1
        ) AS page ON true
        ORDER BY page.id {span.order}
    """
    bounds = {"low": span.low, "high": span.high, "source": source, "limit": limit}
    rows = connection.execute(statement(query), values | bounds).all()
    ids = tuple(row.id for row in rows if row.id is not None)
    return Found(ids=ids[:limit], sources=rows[0].sources or {}, has_more=len(ids) > limit)


_BODIES = statement(
    """
    SELECT id, body_key, CASE WHEN octet_length(body) <= :largest THEN body END AS body
    FROM ingest.deliveries WHERE id = ANY(CAST(:ids AS uuid[]))
    """
)


def bodies(connection: Connection, events: Sequence[UUID], *, largest: int) -> dict[UUID, bytes]:
    """Return the first bodies of events, those that are kept, readable and of no more than
    `largest` bytes."""
    rows = connection.execute(_BODIES, {"ids": list(events), "largest": largest})
    shown = {
        row.id: to_show(connection, row.body, delivery=row.id, key=row.body_key) for row in rows
    }
    return {event: one.body for event, one in shown.items() if one.body is not None}


_ERASED = statement(
    """
    SELECT erased.event, erasures.id AS erasure, erasures.requested_at AS at
    FROM ingest.erased_events AS erased JOIN ingest.erasures ON erasures.id = erased.erasure
    WHERE erased.event = ANY(CAST(:ids AS uuid[]))
    """
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """That an event was erased."""

    event: UUID
    erasure: int
    """The number of the erasure."""
    at: datetime
    """When it was asked for."""


def erased(connection: Connection, events: Sequence[UUID]) -> list[Erased]:
    """Return which of some events were erased."""
    rows = connection.execute(_ERASED, {"ids": list(events)}).mappings()
    return [Erased(**row) for row in rows]
