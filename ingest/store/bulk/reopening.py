"""Rejected deliveries, parsed again after their source has learned to read them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine

from ingest import ids, queues
from ingest.errors import BodyTampered, InvalidEnvelope
from ingest.sources.base import EventIdentity, Source, encoded_headers
from ingest.sources.identities import Element, name_body
from ingest.store.encryption.opening import keys_of
from ingest.store.sql import statement

_BATCH = 500
"""Deliveries a transaction."""

_REJECTED = statement(
    """
    SELECT id, source, body, body_key, headers FROM ingest.deliveries
    WHERE id = ANY(CAST(:ids AS uuid[])) AND rejected IS NOT NULL AND body IS NOT NULL
    ORDER BY id FOR UPDATE
    """
)


_ACCEPT = statement(
    """
    WITH accepted AS (
        UPDATE ingest.deliveries SET rejected = NULL WHERE id = :id
        RETURNING id, source, received_at
    )
    INSERT INTO ingest.unadmitted (delivery, source, event_id, type, fingerprint, received_at,
                                   queue, hint_at)
    SELECT id, source, :event_id, :type, :fingerprint, received_at, :queue, now() FROM accepted
    """
)


_ADD_ELEMENT = statement(
    """
    INSERT INTO ingest.deliveries (id, source, received_at, key_id, headers, body, rejected,
                                   part_of, body_key)
    SELECT :id, source, received_at, key_id, headers, :body, :rejected, id, body_key
    FROM ingest.deliveries WHERE id = :delivery
    """
)


_CLEAR = statement("UPDATE ingest.deliveries SET rejected = NULL WHERE id = :id")


def reopen(
    connection: Connection, sources: Mapping[str, Source], deliveries: Sequence[UUID]
) -> list[UUID]:
    """Parse rejected deliveries, or elements, again from their raw bytes; return those that are
    events now.

    Those are admitted as if they had just arrived. The others stay as they are. A delivery that
    holds several events now gets its elements.

    Raises:
        BodyKeyMissing: one is encrypted with a key that this process lacks.
    """
    opened = []
    for row in connection.execute(_REJECTED, {"ids": list(deliveries)}):
        source = sources.get(row.source)
        if source is None:
            continue
        try:
            body = keys_of(connection).open(row.body, row.id, row.body_key)
        except BodyTampered:
            continue
        named = name_body(source, body, encoded_headers(row.headers))
        if isinstance(named, InvalidEnvelope):
            continue
        if isinstance(named, list):
            _accept_elements(connection, row.id, row.body_key, named)
        else:
            connection.execute(_ACCEPT, _parameters(row.id, named))
        opened.append(row.id)
    return opened


def _accept_elements(
    connection: Connection, delivery: UUID, key: str | None, elements: Sequence[Element]
) -> None:
    """Store the elements of a delivery, encrypted with its key if it is."""
    for position, element in enumerate(elements):
        body, name = element
        identity = ids.element_id(delivery, position)
        rejected = name.reason if isinstance(name, InvalidEnvelope) else None
        stored = body if key is None else keys_of(connection).seal(body, identity, key)
        row = {"id": identity, "delivery": delivery, "body": stored, "rejected": rejected}
        connection.execute(_ADD_ELEMENT, row)
        if not isinstance(name, InvalidEnvelope):
            connection.execute(_ACCEPT, _parameters(identity, name))
    connection.execute(_CLEAR, {"id": delivery})


def _parameters(delivery: UUID, name: EventIdentity) -> dict[str, Any]:
    return {
        "id": delivery,
        "event_id": name.event_id,
        "type": name.type,
        "fingerprint": name.fingerprint,
        "queue": queues.REPLAY,
    }


_NEXT_REJECTED = statement(
    f"""
    SELECT id FROM ingest.deliveries WHERE rejected IS NOT NULL AND id > :after
    ORDER BY id LIMIT {_BATCH}
    """
)


def reopen_all(engine: Engine, sources: Mapping[str, Source]) -> Iterator[tuple[int, list[UUID]]]:
    """Parse every rejected delivery again, oldest first, a batch a transaction.

    Yield for each batch how many were parsed, and which of them are events now.
    """
    last = UUID(int=0)
    while True:
        with engine.begin() as connection:
            rejected = list(connection.execute(_NEXT_REJECTED, {"after": last}).scalars())
            if not rejected:
                return
            opened = reopen(connection, sources, rejected)
        last = rejected[-1]
        yield len(rejected), opened


@dataclass(frozen=True, slots=True, kw_only=True)
class Reopened:
    """What has become of deliveries that were opened."""

    unadmitted: int
    """Deliveries and elements."""
    unfinished: int
    """Jobs that wait, run or are retried. Those of duplicates are their event's."""
    succeeded: int
    dead: int

    @property
    def is_moving(self) -> bool:
        """Return whether anything is still to come."""
        return bool(self.unadmitted or self.unfinished)


# The ids of elements follow that of their delivery, and no other id is between them.
_BECAME = statement(
    """
    WITH opened AS MATERIALIZED (
        SELECT * FROM unnest(CAST(:firsts AS uuid[]), CAST(:lasts AS uuid[])) AS o (first, last)
    )
    SELECT (SELECT count(*) FROM opened JOIN ingest.unadmitted u
            ON u.delivery >= first AND u.delivery <= last) AS unadmitted,
           count(*) FILTER (WHERE state NOT IN ('succeeded', 'dead')) AS unfinished,
           count(*) FILTER (WHERE state = 'succeeded') AS succeeded,
           count(*) FILTER (WHERE state = 'dead') AS dead
    FROM opened JOIN ingest.jobs j ON j.event >= first AND j.event <= last
    """
)


def became(connection: Connection, opened: Sequence[UUID]) -> Reopened:
    """Return what has become of deliveries that were opened, some hundreds of them."""
    lasts = [ids.last_element_id(delivery) for delivery in opened]
    row = connection.execute(_BECAME, {"firsts": list(opened), "lasts": lasts}).mappings().one()
    return Reopened(**row)
