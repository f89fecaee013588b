"""Rejected deliveries, parsed again after their source has learned to read them."""

from collections.abc import Iterator, Mapping, Sequence
from uuid import UUID

from sqlalchemy import Connection, Engine

from ingest import queues
from ingest.errors import InvalidEnvelope
from ingest.sources.base import Source, encoded_headers
from ingest.store.sql import statement

_BATCH = 500
"""Deliveries a transaction."""

_REJECTED = statement(
    """
    SELECT id, source, body, headers FROM ingest.deliveries
    WHERE id = ANY(CAST(:ids AS uuid[])) AND rejected IS NOT NULL
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


def reopen(
    connection: Connection, sources: Mapping[str, Source], deliveries: Sequence[UUID]
) -> list[UUID]:
    """Parse rejected deliveries again, from their raw bytes; return those that are events now.

    Those are admitted as if they had just arrived. The others stay as they are.
    """
    opened = []
    for row in connection.execute(_REJECTED, {"ids": list(deliveries)}):
        source = sources.get(row.source)
        if source is None:
            continue
        try:
            name = source.identify(source.parse(row.body), encoded_headers(row.headers))
        except InvalidEnvelope:
            continue
        connection.execute(
            _ACCEPT,
            {
                "id": row.id,
                "event_id": name.event_id,
                "type": name.type,
                "fingerprint": name.fingerprint,
                "queue": queues.REPLAY,
            },
        )
        opened.append(row.id)
    return opened


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
