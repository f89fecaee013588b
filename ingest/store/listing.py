"""Lists of events, newest first."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, text

from ingest.errors import NotFound
from ingest.store.selection import (
    EVENT_STATES,
    STATE_OF_EVENT,
    TYPES,
    UNHANDLED,
    Selection,
    named_by,
    where,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedEvent:
    """An event as a line of a list."""

    id: UUID
    source: str
    event_id: str
    type: str
    state: str
    received_at: datetime
    deliveries: int
    """How often it was delivered."""


def events(connection: Connection, selection: Selection, *, limit: int) -> Iterator[ListedEvent]:
    """The newest `limit` events of a selection, as they are found.

    What it costs depends on `limit` and on how many events are in the state that is asked for, not
    on how many there are. A search is the exception: what it names exactly comes first; then it
    reads on, from the newest event to the oldest, for whatever contains it.
    """
    if selection.search is None or selection.state in _FEW:
        return _page(connection, selection, limit)
    return itertools.islice(_searched(connection, selection), limit)


def _page(connection: Connection, selection: Selection, limit: int) -> Iterator[ListedEvent]:
    """One statement, which goes by the index that leads to the newest soonest."""
    found = where(selection)
    conditions = [*found.conditions, *_of_jobs(selection)]
    parameters = found.parameters | {"limit": limit, "processor": selection.processor}
    by_type = selection.types and selection.state not in _FEW and not selection.ids
    if by_type:
        conditions.append("events.type = known.type")
    source, order = "events", "events.id"
    if by_type:
        # One type each time; naming it keeps the planner from walking back through all of them.
        order = "events.type DESC, events.id"
    if selection.state in _FEW:
        order = "few.event"
        source = f"({_FEW[selection.state]}) AS few JOIN events ON events.id = few.event"
    query = f"""
        SELECT {_COLUMNS}
        FROM {source} CROSS JOIN LATERAL ({STATE_OF_EVENT}) AS summary
        WHERE {" AND ".join(conditions) or "true"}
        ORDER BY {order} DESC LIMIT :limit
    """
    if by_type:
        query = f"""
            WITH RECURSIVE {TYPES}
            SELECT page.* FROM known CROSS JOIN LATERAL ({query}) AS page
            WHERE known.type LIKE ANY(CAST(:types AS text[]))
            ORDER BY page.id DESC LIMIT :limit
        """
    rows = connection.execute(text(query), parameters)
    return (ListedEvent(**row) for row in rows.mappings())


def _of_jobs(selection: Selection) -> list[str]:
    """The conditions of a selection that speak of jobs."""
    conditions = []
    if selection.state is not None:
        assert selection.state in EVENT_STATES  # put into the statement, so that indexes fit it
        conditions.append(f"summary.state = '{selection.state}'")
    if selection.processor is not None:
        conditions.append(
            "EXISTS (SELECT FROM jobs WHERE event = events.id AND processor = :processor)"
        )
    return conditions


def _searched(connection: Connection, selection: Selection) -> Iterator[ListedEvent]:
    assert selection.search is not None
    named = named_by(connection, selection.search)
    if named:
        exact = replace(selection, search=None, ids=named)
        yield from _page(connection, exact, len(named))
    found = where(selection)
    query = text(
        f"""
        WITH slice AS MATERIALIZED (
            SELECT * FROM events
            WHERE {" AND ".join(("events.id < :before", *where(_range(selection)).conditions))}
            ORDER BY events.id DESC LIMIT {_SLICE}
        ), hits AS (
            SELECT {_COLUMNS}
            FROM slice AS events CROSS JOIN LATERAL ({STATE_OF_EVENT}) AS summary
            WHERE {" AND ".join((*found.conditions, *_of_jobs(selection)))}
        )
        SELECT (SELECT id FROM slice ORDER BY id LIMIT 1) AS reached, hits.*
        FROM (SELECT) AS always LEFT JOIN hits ON true
        ORDER BY hits.id DESC
        """
    )
    before: UUID | None = _BEYOND_ALL
    while before is not None:
        parameters = found.parameters | {"before": before, "processor": selection.processor}
        rows = [dict(row) for row in connection.execute(query, parameters).mappings()]
        reached = [row.pop("reached") for row in rows]
        yield from (ListedEvent(**row) for row in rows if row["id"] and row["id"] not in named)
        before = reached[0]


def _range(selection: Selection) -> Selection:
    """Only from when to when."""
    return Selection(since=selection.since, until=selection.until)


_SLICE = 5_000
"""Events that one statement of a search reads; some tens of milliseconds."""
_BEYOND_ALL = UUID(int=2**128 - 1)

_COLUMNS = """events.id, events.source, events.event_id, events.type, summary.state,
            events.received_at,
            1 + (SELECT count(*) FROM duplicates WHERE event = events.id) AS deliveries"""

# States that few events are in, each by the index that knows them.
_FEW = {
    "pending": "SELECT DISTINCT event FROM jobs WHERE due_at IS NOT NULL AND state = 'pending'"
    " ORDER BY event DESC",
    "retrying": "SELECT DISTINCT event FROM jobs WHERE due_at IS NOT NULL AND state = 'retrying'"
    " ORDER BY event DESC",
    "running": "SELECT DISTINCT event FROM jobs WHERE lease_until IS NOT NULL ORDER BY event DESC",
    "dead": "SELECT DISTINCT event FROM jobs WHERE state = 'dead' ORDER BY event DESC",
    UNHANDLED: "SELECT event FROM unhandled ORDER BY event DESC",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedDelivery:
    """A signed request that was no event."""

    id: UUID
    source: str
    received_at: datetime
    rejected: str
    size: int


def rejected(connection: Connection, *, limit: int) -> Iterator[RejectedDelivery]:
    """The newest `limit` rejected deliveries."""
    rows = connection.execute(_REJECTED, {"limit": limit})
    return (RejectedDelivery(**row) for row in rows.mappings())


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeDelivery:
    """A stored delivery with what was sent."""

    id: UUID
    source: str
    received_at: datetime
    rejected: str | None
    key_id: str
    headers: list[tuple[str, str]]
    body: bytes


def delivery(connection: Connection, identity: UUID) -> WholeDelivery:
    """One delivery.

    Raises:
        NotFound: there is none of that id, or its day was dropped.
    """
    row = connection.execute(_DELIVERY, {"id": identity}).mappings().one_or_none()
    if row is None:
        raise NotFound(f"There is no delivery {identity}.", reason="not_found")
    return WholeDelivery(**row)


_DELIVERY = text(
    "SELECT id, source, received_at, rejected, key_id, headers, body FROM deliveries WHERE id = :id"
)

_REJECTED = text(
    """
    SELECT id, source, received_at, rejected, octet_length(body) AS size
    FROM deliveries WHERE rejected IS NOT NULL
    ORDER BY id DESC LIMIT :limit
    """
)
