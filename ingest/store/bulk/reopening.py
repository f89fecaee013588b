"""Rejected deliveries, parsed again after their source has learned to read them."""

from collections.abc import Iterator, Mapping, Sequence
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


def reopen_all(engine: Engine, sources: Mapping[str, Source]) -> Iterator[tuple[int, int]]:
    """Parse every rejected delivery again, oldest first, a batch a transaction.

    Yield how many were parsed so far, and how many of them are events now.
    """
    parsed = opened = 0
    last = UUID(int=0)
    while True:
        with engine.begin() as connection:
            ids = list(connection.execute(_NEXT_REJECTED, {"after": last}).scalars())
            if not ids:
                return
            opened += len(reopen(connection, sources, ids))
        parsed, last = parsed + len(ids), ids[-1]
        yield parsed, opened
