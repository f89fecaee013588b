"""The last refused requests: a few for each reason, without bodies, since anybody can send them."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Connection, RowMapping

from ingest.sources.diagnosis import Step
from ingest.store.sql import statement

KEPT = 10
"""How many samples of each reason are kept."""
_STEPS = "steps:"
"""What the steps of a diagnosis are stored under, beside headers, whose names have no colon. Their
value is text as that of headers is, because the release before reads it so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A request that was not answered 200."""

    reason: str
    at: datetime
    source: str
    client: str
    """Its address."""
    detail: Mapping[str, str]
    """Headers that show what was wrong."""
    steps: tuple[Step, ...] = ()
    """What was looked at, and what is to blame; empty: nothing was."""


_KEEP = statement(
    """
    INSERT INTO ingest.refusals (reason, slot, at, source, client, detail)
    SELECT :reason, coalesce(
               (SELECT min(free) FROM generate_series(0, :kept - 1) AS free
                WHERE free NOT IN (SELECT slot FROM ingest.refusals WHERE reason = :reason)),
               (SELECT slot FROM (
                    SELECT slot, at, count(*) OVER (PARTITION BY source, client) AS alike
                    FROM ingest.refusals WHERE reason = :reason
                ) AS taken ORDER BY alike DESC, at LIMIT 1)
           ), :at, :source, :client, CAST(:detail AS jsonb)
    ON CONFLICT (reason, slot) DO UPDATE
    SET at = excluded.at, source = excluded.source, client = excluded.client,
        detail = excluded.detail
    """
)


def keep(connection: Connection, refusals: Iterable[Refusal]) -> None:
    """Store samples. Once all places of its reason are taken, each replaces the oldest of the
    sender that has most of them: one that floods us leaves those of others."""
    for refusal in refusals:
        connection.execute(
            _KEEP,
            {
                "reason": refusal.reason,
                "at": refusal.at,
                "source": refusal.source,
                "client": refusal.client,
                "detail": json.dumps(_as_json(refusal)),
                "kept": KEPT,
            },
        )


_NEWEST = statement(
    "SELECT reason, at, source, client, detail FROM ingest.refusals ORDER BY at DESC"
)


def newest(connection: Connection) -> list[Refusal]:
    """Return all samples, newest first."""
    return [_read(row) for row in connection.execute(_NEWEST).mappings()]


def _as_json(refusal: Refusal) -> dict[str, str]:
    steps = json.dumps([asdict(step) for step in refusal.steps])
    return {**refusal.detail, _STEPS: steps} if refusal.steps else dict(refusal.detail)


def _read(row: RowMapping) -> Refusal:
    detail = dict(row["detail"])
    steps = tuple(Step(**step) for step in json.loads(detail.pop(_STEPS, "[]")))
    return Refusal(**{**row, "detail": detail, "steps": steps})
