"""The last requests that were refused, a few for each reason: anybody can send those, so no more is
kept of them, and no body."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from ingest.store.sql import statement

KEPT = 10
"""Samples of each reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A request that was not answered 200."""

    reason: str
    at: datetime
    source: str
    client: str
    """Its address."""
    detail: Mapping[str, str]
    """Headers that tell what went wrong."""


_KEEP = statement(
    """
    INSERT INTO ingest.refusals (reason, slot, at, source, client, detail)
    SELECT :reason, coalesce(
               (SELECT min(free) FROM generate_series(0, :kept - 1) AS free
                WHERE free NOT IN (SELECT slot FROM ingest.refusals WHERE reason = :reason)),
               (SELECT slot FROM ingest.refusals WHERE reason = :reason ORDER BY at LIMIT 1)
           ), :at, :source, :client, CAST(:detail AS jsonb)
    ON CONFLICT (reason, slot) DO UPDATE
    SET at = excluded.at, source = excluded.source, client = excluded.client,
        detail = excluded.detail
    """
)


def keep(connection: Connection, refusals: Iterable[Refusal]) -> None:
    """Keep samples, each in the place of the oldest of its reason."""
    for each in refusals:
        connection.execute(
            _KEEP,
            {
                "reason": each.reason,
                "at": each.at,
                "source": each.source,
                "client": each.client,
                "detail": json.dumps(dict(each.detail)),
                "kept": KEPT,
            },
        )


_NEWEST = statement(
    "SELECT reason, at, source, client, detail FROM ingest.refusals ORDER BY at DESC"
)


def newest(connection: Connection) -> list[Refusal]:
    """All that is kept, newest first."""
    return [Refusal(**row) for row in connection.execute(_NEWEST).mappings()]
