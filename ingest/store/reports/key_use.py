"""How often each key of a source has signed a delivery that was stored, and when it did last.

Receivers count this every few seconds (ingest.receiver.metrics), beside their answers.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from sqlalchemy import Connection, RowMapping

from ingest.store.pipeline import activity_sums, metrics
from ingest.store.pipeline.metrics import KEY
from ingest.store.sql import statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a key signed in a span of time."""

    deliveries: int
    share: float
    """Of its source's deliveries in that span, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastUse:
    """When a key was used last, that is configured or was used lately."""

    source: str
    key_id: str
    is_configured: bool
    """False: the key is retired."""
    last_used_at: datetime | None
    """As of a `KeyUse`. None: it was not used in the time that was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUse:
    """A key that is configured, or was used lately."""

    source: str
    key_id: str
    is_configured: bool
    """False: the key is retired."""
    last_used_at: datetime | None
    """To the minute for two hours, then to the quarter of an hour, after a day to the hour. None:
    it was not used in the last 30 days."""
    hour: Part
    day: Part
    month: Part
    """The last 30 days."""


_SPANS = {"hour": timedelta(hours=1), "day": timedelta(days=1), "month": timedelta(days=30)}
_USES = """
    SELECT label, max(minute) AS last_used_at,
           coalesce(sum(count) FILTER (WHERE minute > :hour), 0) AS hour,
           coalesce(sum(count) FILTER (WHERE minute > :day), 0) AS day,
           CAST(sum(count) AS bigint) AS month
    FROM ({counted}) AS counted GROUP BY label ORDER BY label
"""


_LAST_USES = "SELECT label, max(minute) AS last_used_at FROM ({counted}) AS counted GROUP BY label"


def label(source: str, key_id: str) -> str:
    """Return the label that a key is counted under."""
    return f"{source} {key_id}"


def read(
    connection: Connection, configured: Mapping[str, Sequence[str]], *, now: datetime
) -> list[KeyUse]:
    """Return the use of each key: first the configured ones, then the retired ones.

    Args:
        connection: in whose transaction to read.
        configured: the ids of the keys of each source, by its slug, newest first.
        now: the end of the spans.
    """
    since = {name: now - length for name, length in _SPANS.items()}
    rows = _counted(connection, _USES, since["month"], now, parameters=since)
    counted = {row["label"]: row for row in rows}
    live = _labels(configured)
    totals: Counter[tuple[str, str]] = Counter()
    for key, row in counted.items():
        for span in _SPANS:
            totals[key.partition(" ")[0], span] += int(row[span])
    return [
        _use(key, counted.get(key), totals, is_configured=key in live)
        for key in dict.fromkeys([*live, *counted])
    ]


def last_uses(
    connection: Connection,
    configured: Mapping[str, Sequence[str]],
    wanted: Collection[str],
    *,
    now: datetime,
) -> list[LastUse]:
    """Return when the keys of these sources were used last.

    If a key of each source was used in the last day, only that day is read: older uses are left
    out. Otherwise 30 days are read, which takes four times as long.

    Args:
        connection: in whose transaction to read.
        configured: the ids of the keys of each source, by its slug.
        wanted: the slugs of the sources.
        now: the end of the spans.
    """
    last_used: dict[str, datetime] = {}
    for span in ("day", "month"):
        rows = _counted(connection, _LAST_USES, now - _SPANS[span], now)
        last_used = {row["label"]: row["last_used_at"] for row in rows}
        if {key.partition(" ")[0] for key in last_used} >= set(wanted):
            break
    live = _labels(configured)
    uses = []
    for key in dict.fromkeys([*live, *last_used]):
        source, _, key_id = key.partition(" ")
        if source in wanted:
            uses.append(
                LastUse(
                    source=source,
                    key_id=key_id,
                    is_configured=key in live,
                    last_used_at=last_used.get(key),
                )
            )
    return uses


def _labels(configured: Mapping[str, Sequence[str]]) -> list[str]:
    return [label(source, key_id) for source, keys in configured.items() for key_id in keys]


def _counted(
    connection: Connection,
    query: str,
    since: datetime,
    now: datetime,
    *,
    parameters: Mapping[str, datetime] = MappingProxyType({}),
) -> Sequence[RowMapping]:
    """Return the rows of `query` about what the keys signed since then."""
    stretches = metrics.as_kept(connection, since, now=now)
    counted, bounds = activity_sums.rows(stretches, "what = :what", with_durations=False)
    bound = {**parameters, **bounds, "what": KEY}
    return connection.execute(statement(query.format(counted=counted)), bound).mappings().all()


def _use(
    key: str,
    row: RowMapping | None,
    totals: Mapping[tuple[str, str], int],
    *,
    is_configured: bool,
) -> KeyUse:
    source, _, key_id = key.partition(" ")
    counts = {span: int(row[span]) if row else 0 for span in _SPANS}
    parts = {
        span: Part(deliveries=count, share=count / totals[source, span] if count else 0.0)
        for span, count in counts.items()
    }
    return KeyUse(
        source=source,
        key_id=key_id,
        is_configured=is_configured,
        last_used_at=row["last_used_at"] if row else None,
        **parts,
    )
