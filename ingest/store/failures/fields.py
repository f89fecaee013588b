"""The fields that the events of a failure have in common, of a bounded sample of stored bodies."""

import time
from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from ingest import strict_json
from ingest.store import arrays
from ingest.store.encryption.opening import to_show
from ingest.store.failures.comparison import CommonField, common
from ingest.store.failures.records import Key
from ingest.store.reports import failures
from ingest.store.sql import statement

SAMPLE = 50
"""How many events that fail so are looked at, and how many others."""
_TYPES = 3
"""Other events are of the most frequent types of the failing ones."""
_LOOKED_THROUGH = 300
"""The newest events of a type that others are looked for among."""
LARGEST = 16 * 1024
"""Bytes of a body that is read."""
LONGEST_S = 0.1
"""No further body is read after that."""

_BODIES = statement(
    """
    SELECT d.id, d.body, d.body_key
    FROM unnest(CAST(:ids AS uuid[])) AS wanted (id)
    CROSS JOIN LATERAL (
        SELECT id, body, body_key FROM ingest.deliveries WHERE id = wanted.id LIMIT 1
    ) AS d
    WHERE octet_length(d.body) <= :largest
    """
)
# An event whose job fails is none of the others, however it fails.
_OTHERS = statement(
    """
    WITH types AS MATERIALIZED (
        SELECT e.type, count(*) AS events FROM unnest(CAST(:ids AS uuid[])) AS wanted (id)
        CROSS JOIN LATERAL (
            SELECT type FROM ingest.events WHERE events.id = wanted.id LIMIT 1
        ) AS e
        GROUP BY e.type ORDER BY count(*) DESC LIMIT :types
    )
    SELECT others.id FROM types CROSS JOIN LATERAL (
        SELECT newest.id FROM (
            SELECT id FROM ingest.events WHERE events.type = types.type
            ORDER BY id DESC LIMIT :looked_through
        ) AS newest
        WHERE (SELECT true FROM ingest.jobs
               WHERE event = newest.id AND processor = :processor
                 AND state IN ('dead', 'retrying') LIMIT 1) IS NULL
        LIMIT :sample
    ) AS others
    LIMIT :sample
    """
)


def read(
    connection: Connection, key: Key, *, clock: Callable[[], float] = time.monotonic
) -> tuple[CommonField, ...]:
    """Return what the newest events of a failure have in common, and others of their types have
    not.

    Bodies that were erased, cannot be decrypted, are large or no JSON are left out.

    Args:
        connection: to the database.
        key: of the failure.
        clock: monotonic, in seconds.
    """
    failing = failures.events(connection, *key, limit=SAMPLE)
    if not failing:
        return ()
    others = connection.execute(
        _OTHERS,
        {
            "ids": arrays.literal(failing),
            "processor": key.processor,
            "types": _TYPES,
            "looked_through": _LOOKED_THROUGH,
            "sample": SAMPLE,
        },
    )
    other_ids = list(others.scalars())
    return common(
        _bodies(connection, failing, clock=clock), _bodies(connection, other_ids, clock=clock)
    )


def _bodies(
    connection: Connection, ids: Iterable[UUID], *, clock: Callable[[], float]
) -> list[Any]:
    """Return the bodies of events, as far as they can be read in time."""
    until = clock() + LONGEST_S
    parameters = {"ids": arrays.literal(ids), "largest": LARGEST}
    read: list[Any] = []
    for row in connection.execute(_BODIES, parameters):
        if clock() > until:
            break
        body = to_show(connection, row.body, delivery=row.id, key=row.body_key).body
        if body is None:
            continue
        try:
            read.append(strict_json.loads(body))
        except strict_json.InvalidJson:
            continue
    return read
