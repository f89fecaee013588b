"""Bringing stored bodies to another key: the statements, a page of deliveries each.

A body changes in two ways only: it is erased, or brought to another key. So a row is written only
if it still has a body under the key that it was read with. Nothing is locked in between, and a
partition may be dropped meanwhile.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, TextClause

from ingest.store.sql import statement

_ROWS = 2_000
_BYTES = 16 * 1024 * 1024
"""How much a page reads, at most (and one delivery in any case)."""
_COUNTED_ROWS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBody:
    """A body as it is stored."""

    delivery: UUID
    key: str | None
    """The id of the key that it is encrypted with; None: it is in clear."""
    stored: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What one statement read."""

    bodies: Sequence[StoredBody]
    """Those that are under another key than the one that is wanted."""
    rows: int
    """How many deliveries were read."""
    end: UUID | None
    """The last of them; None: there are no further ones."""


# The window sums what is to be read only: bodies that are where they should be cost nothing.
def read_of(*, rows: int) -> TextClause:
    """Return the statement that reads a page of at most so many deliveries."""
    return statement(f"""
    WITH page AS MATERIALIZED (
        SELECT id, body IS NOT NULL AND body_key IS DISTINCT FROM CAST(:wanted AS text) AS is_meant,
               coalesce(octet_length(body), 0) AS size
        FROM ingest.deliveries
        WHERE id > CAST(:after AS uuid) ORDER BY id LIMIT {rows}
    ), bounded AS MATERIALIZED (
        SELECT id, is_meant FROM (
            SELECT id, is_meant, size,
                   sum(CASE WHEN is_meant THEN size ELSE 0 END) OVER (ORDER BY id) AS read
            FROM page
        ) AS summed WHERE read - CASE WHEN is_meant THEN size ELSE 0 END < {_BYTES}
    )
    SELECT bounded.id, deliveries.body_key, deliveries.body
    FROM bounded LEFT JOIN LATERAL (
        SELECT body_key, body FROM ingest.deliveries
        WHERE is_meant AND deliveries.id = bounded.id LIMIT 1
    ) AS deliveries ON true
    ORDER BY bounded.id
    """)


_READ = read_of(rows=_ROWS)


def page_after(connection: Connection, after: UUID, *, wanted: str | None) -> Page:
    """Return the next page of deliveries with the bodies that are not under the key `wanted`."""
    rows = connection.execute(_READ, {"after": after, "wanted": wanted}).all()
    return Page(
        bodies=[
            StoredBody(delivery=row.id, key=row.body_key, stored=bytes(row.body))
            for row in rows
            if row.body is not None
        ],
        rows=len(rows),
        end=rows[-1].id if rows else None,
    )


_WRITE = statement(
    """
    UPDATE ingest.deliveries SET body = fresh.body, body_key = CAST(:wanted AS text)
    FROM ROWS FROM (
        unnest(CAST(:ids AS uuid[])), unnest(CAST(:keys AS text[])),
        unnest(CAST(:bodies AS bytea[]))
    ) AS fresh (id, key, body)
    WHERE deliveries.id = ANY(CAST(:ids AS uuid[])) AND deliveries.id = fresh.id
      AND deliveries.body IS NOT NULL AND deliveries.body_key IS NOT DISTINCT FROM fresh.key
    """
)


def replace(
    connection: Connection,
    before: Sequence[StoredBody],
    bodies: Sequence[bytes],
    *,
    wanted: str | None,
) -> int:
    """Write bodies as they are under the key `wanted`; return how many were still as `before`."""
    return connection.execute(
        _WRITE,
        {
            "ids": [body.delivery for body in before],
            "keys": [body.key for body in before],
            "bodies": list(bodies),
            "wanted": wanted,
        },
    ).rowcount


_COUNT = statement(
    f"""
    WITH page AS MATERIALIZED (
        SELECT id, body_key, body IS NOT NULL AS has_body FROM ingest.deliveries
        WHERE id > CAST(:after AS uuid) ORDER BY id LIMIT {_COUNTED_ROWS}
    )
    SELECT (SELECT id FROM page ORDER BY id DESC LIMIT 1) AS end, body_key, count(*) AS bodies
    FROM page WHERE has_body GROUP BY body_key
    UNION ALL
    SELECT (SELECT id FROM page ORDER BY id DESC LIMIT 1), NULL, 0
    """
)


def count_after(connection: Connection, after: UUID) -> tuple[Counter[str | None], UUID | None]:
    """Return how many bodies of the next page are under each key (None: in clear), and where the
    page ended; None: there are no further ones."""
    rows = connection.execute(_COUNT, {"after": after}).all()
    counted: Counter[str | None] = Counter()
    for row in rows:
        counted[row.body_key] += row.bodies
    return counted, rows[0].end


# A receiver that has just begun with such a key has recorded it before, and reports itself within
# seconds; then the key is recorded again with its next connection.
_FORGET = statement(
    """
    DELETE FROM ingest.body_keys AS known
    WHERE NOT id = ANY(CAST(:kept AS text[]))
      AND NOT EXISTS (SELECT FROM ingest.processes
                      WHERE kind = 'receiver' AND processes.body_keys[1] = known.id)
    RETURNING id
    """
)


def forget_unused(connection: Connection, bodies: Mapping[str | None, int]) -> list[str]:
    """Forget the keys that no body is under, and no receiver encrypts with; return their ids."""
    kept = [key for key, number in bodies.items() if key is not None and number]
    return sorted(connection.execute(_FORGET, {"kept": kept}).scalars())
