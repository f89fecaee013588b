"""How many requests were refused: by minute, reason, source and address, with what was answered.

Anybody can have a request refused, so rows are bounded. Of a reason, `ADDRESSES` addresses have
rows of their own in a minute; further ones share a row without an address. Old minutes become
quarters of an hour and then hours, in which the addresses with the most requests keep their rows.
Of all rows the newest `KEPT` stay.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, TextClause

from ingest.store.sql import statement

ADDRESSES = 20
"""So many addresses of a reason have rows of their own in a minute, for each receiver at most."""
KEPT = 20_000
"""Rows that are kept: 8 MB with their index."""
_LONGEST_SPAN = timedelta(hours=1)
"""Of one row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedRequests:
    """Requests that were refused alike."""

    minute: datetime
    """When the minute begins; of old ones the quarter of an hour, then the hour."""
    reason: str
    """The slug in the answers, `error`."""
    source: str
    """Empty: no source has the name that was asked for."""
    client: str
    """The address that they came from; empty: further addresses, which have no rows."""
    status: int
    """Of the last answer."""
    sentence: str
    """In the last answer, `message`."""
    count: int
    """How many they are."""
    first_at: datetime
    """When the first came."""
    last_at: datetime
    """When the last came."""
    request: UUID
    """The id in the last answer, `request_id`; a rejected delivery is stored under it."""

    @property
    def key(self) -> "Key":
        """Return what tells the row from others."""
        return Key(self.minute, self.reason, self.source, self.client)


class Key(NamedTuple):
    """What tells a row from others, and its place in the list."""

    minute: datetime
    reason: str
    source: str
    client: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalFilter:
    """Which refused requests are meant. None: whatever it is."""

    since: datetime
    until: datetime
    source: str | None = None
    """Empty: no source has the name that was asked for."""
    reason: str | None = None
    client: str | None = None
    text: str | None = None
    """A part of the reason, the source, the address or the sentence, in any case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonTotal:
    """The requests of a source that were refused for one reason."""

    reason: str
    source: str
    status: int
    sentence: str
    """Status and sentence are those of the last answer."""
    count: int
    addresses: int
    """How many addresses are known."""
    has_more_addresses: bool
    """Whether there were further ones."""
    first_at: datetime
    last_at: datetime
    request: UUID
    """The id in the last answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonCount:
    """How many requests a reason has."""

    reason: str
    source: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressTotal:
    """The refused requests of one address."""

    client: str
    """Empty: further addresses, which are not told apart."""
    count: int
    first_at: datetime
    last_at: datetime
    reasons: tuple[ReasonCount, ...]
    """The most frequent first, a few at most."""


_COLUMNS = tuple(field.name for field in fields(RefusedRequests))
_LISTED = ", ".join(_COLUMNS)
_NEWEST_OF = "(array_agg({0} ORDER BY last_at DESC, request DESC))[1] AS {0}"
_OF_THE_LAST = ", ".join(_NEWEST_OF.format(name) for name in ("status", "sentence", "request"))
_IS_NEWER = "excluded.last_at >= refusal_counts.last_at"
_ADD = f"""
    ON CONFLICT (minute, reason, source, client) DO UPDATE
    SET count = refusal_counts.count + excluded.count,
        first_at = least(refusal_counts.first_at, excluded.first_at),
        last_at = greatest(refusal_counts.last_at, excluded.last_at),
        status = CASE WHEN {_IS_NEWER} THEN excluded.status ELSE refusal_counts.status END,
        sentence = CASE WHEN {_IS_NEWER} THEN excluded.sentence ELSE refusal_counts.sentence END,
        request = CASE WHEN {_IS_NEWER} THEN excluded.request ELSE refusal_counts.request END
"""


def _insert(rows: str) -> str:
    """Return the statement's part that adds `rows`; some may have the same key. One order of rows
    keeps receivers from waiting for each other in a circle."""
    return f"""
    INSERT INTO ingest.refusal_counts
        (minute, reason, source, client, count, first_at, last_at, status, sentence, request)
    SELECT minute, reason, source, client, sum(count), min(first_at), max(last_at), {_OF_THE_LAST}
    FROM {rows} GROUP BY minute, reason, source, client ORDER BY minute, reason, source, client
    {_ADD}
    """


# An address that has a row in its minute keeps it; of the others as many get one as there is room.
_COUNT = statement(
    f"""
    WITH told AS MATERIALIZED (
        SELECT told.*, kept.client IS NOT NULL AS is_known
        FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS told (
            minute timestamptz, reason text, source text, client text, status smallint,
            sentence text, count bigint, first_at timestamptz, last_at timestamptz, request uuid)
        LEFT JOIN ingest.refusal_counts kept USING (minute, reason, source, client)
    ), room AS (
        SELECT minute, reason, (
            SELECT count(*) FROM ingest.refusal_counts taken
            WHERE taken.minute = told.minute AND taken.reason = told.reason AND taken.client <> ''
        ) AS taken
        FROM told GROUP BY minute, reason
    ), ranked AS (
        SELECT told.*, taken + row_number() OVER (
            PARTITION BY minute, reason, is_known OR client = '' ORDER BY source, client
        ) AS place
        FROM told JOIN room USING (minute, reason)
    ), placed AS (
        SELECT minute, reason, source,
               CASE WHEN is_known OR place <= :addresses THEN client ELSE '' END AS client,
               status, sentence, count, first_at, last_at, request
        FROM ranked
    )
    {_insert("placed")}
    """
)


def add(connection: Connection, rows: Sequence[RefusedRequests]) -> None:
    """Add to the counts."""
    if rows:
        told = json.dumps([asdict(row) for row in rows], default=str)
        connection.execute(_COUNT, {"rows": told, "addresses": ADDRESSES})


_WHERE = """
    minute >= CAST(:since AS timestamptz) - CAST(:longest AS interval) AND last_at >= :since
    AND minute < :until
    AND (CAST(:source AS text) IS NULL OR source = :source)
    AND (CAST(:reason AS text) IS NULL OR reason = :reason)
    AND (CAST(:client AS text) IS NULL OR client = :client)
    AND (CAST(:text AS text) IS NULL
         OR strpos(lower(reason || E'\\n' || source || E'\\n' || client || E'\\n' || sentence),
                   lower(CAST(:text AS text))) > 0)
"""

_PAGE = statement(
    f"""
    SELECT {_LISTED} FROM ingest.refusal_counts
    WHERE {_WHERE}
      AND (CAST(:before_minute AS timestamptz) IS NULL
           OR (minute, reason, source, client)
              < (:before_minute, :before_reason, :before_source, :before_client))
    ORDER BY minute DESC, reason DESC, source DESC, client DESC LIMIT :limit
    """
)


def newest(
    connection: Connection, wanted: RefusalFilter, *, limit: int, before: Key | None = None
) -> list[RefusedRequests]:
    """Return the newest `limit` rows, or those after the row `before` in the list."""
    place = before or Key(None, "", "", "")  # type: ignore[arg-type]  # no place: no condition
    bounds = {f"before_{name}": value for name, value in place._asdict().items()}
    rows = connection.execute(_PAGE, _parameters(wanted) | bounds | {"limit": limit})
    return [RefusedRequests(**row) for row in rows.mappings()]


# The last row of a reason is looked up by its time: to sort all rows for it took the most time.
_BY_REASON = statement(
    f"""
    WITH parts AS (
        SELECT reason, source, client, CAST(sum(count) AS bigint) AS count,
               min(first_at) AS first_at, max(last_at) AS last_at
        FROM ingest.refusal_counts WHERE {_WHERE} GROUP BY reason, source, client
    ), totals AS (
        SELECT reason, source, CAST(sum(count) AS bigint) AS count,
               count(*) FILTER (WHERE client <> '') AS addresses,
               bool_or(client = '') AS has_more_addresses,
               min(first_at) AS first_at, max(last_at) AS last_at
        FROM parts GROUP BY reason, source ORDER BY sum(count) DESC, reason, source LIMIT :limit
    )
    SELECT totals.*, newest.status, newest.sentence, newest.request
    FROM totals CROSS JOIN LATERAL (
        SELECT status, sentence, request FROM ingest.refusal_counts
        WHERE {_WHERE} AND reason = totals.reason AND source = totals.source
          AND last_at = totals.last_at AND minute <= totals.last_at
          AND minute > totals.last_at - CAST(:longest AS interval)
        ORDER BY minute DESC, request DESC LIMIT 1
    ) AS newest
    ORDER BY count DESC, reason, source
    """
)


def by_reason(connection: Connection, wanted: RefusalFilter, *, limit: int) -> list[ReasonTotal]:
    """Return the reasons with the most requests, by source."""
    rows = connection.execute(_BY_REASON, _parameters(wanted) | {"limit": limit})
    return [ReasonTotal(**row) for row in rows.mappings()]


_REASONS_SHOWN = 4
_BY_ADDRESS = statement(
    f"""
    WITH parts AS (
        SELECT client, reason, source, CAST(sum(count) AS bigint) AS count,
               min(first_at) AS first_at, max(last_at) AS last_at
        FROM ingest.refusal_counts WHERE {_WHERE} GROUP BY client, reason, source
    )
    SELECT client, CAST(sum(count) AS bigint) AS count, min(first_at) AS first_at,
           max(last_at) AS last_at,
           (array_agg(reason ORDER BY count DESC, reason, source))[1:{_REASONS_SHOWN}] AS reasons,
           (array_agg(source ORDER BY count DESC, reason, source))[1:{_REASONS_SHOWN}] AS sources,
           (array_agg(count ORDER BY count DESC, reason, source))[1:{_REASONS_SHOWN}] AS counts
    FROM parts GROUP BY client ORDER BY sum(count) DESC, client LIMIT :limit
    """
)


def by_address(connection: Connection, wanted: RefusalFilter, *, limit: int) -> list[AddressTotal]:
    """Return the addresses with the most requests."""
    rows = connection.execute(_BY_ADDRESS, _parameters(wanted) | {"limit": limit}).mappings()
    return [
        AddressTotal(
            client=row["client"],
            count=row["count"],
            first_at=row["first_at"],
            last_at=row["last_at"],
            reasons=tuple(
                ReasonCount(reason=reason, source=source, count=count)
                for reason, source, count in zip(
                    row["reasons"], row["sources"], row["counts"], strict=True
                )
            ),
        )
        for row in rows
    ]


_OVER_TIME = statement(
    f"""
    SELECT reason, date_bin(:span, minute, :since) AS begins, CAST(sum(count) AS bigint) AS times
    FROM ingest.refusal_counts WHERE {_WHERE} AND minute >= :since GROUP BY 1, 2
    """
)


def over_time(
    connection: Connection, wanted: RefusalFilter, *, span: timedelta
) -> dict[str, dict[datetime, int]]:
    """Return how many there were, by reason and by when each span begins; the first one begins at
    `wanted.since`."""
    counts: dict[str, dict[datetime, int]] = {}
    for row in connection.execute(_OVER_TIME, _parameters(wanted) | {"span": span}):
        counts.setdefault(row.reason, {})[row.begins] = row.times
    return counts


_OF_MOMENT = statement(
    f"""
    SELECT {_LISTED} FROM ingest.refusal_counts
    WHERE minute > CAST(:at AS timestamptz) - CAST(:longest AS interval) AND minute <= :at
      AND first_at <= CAST(:at AS timestamptz) + CAST(:slack AS interval)
      AND last_at >= CAST(:at AS timestamptz) - CAST(:slack AS interval)
    ORDER BY request = :request DESC, last_at - first_at, reason, source, client LIMIT :limit
    """
)


def of_moment(
    connection: Connection, *, request: UUID, at: datetime, limit: int
) -> list[RefusedRequests]:
    """Return the rows of which the request `request`, which came at `at`, may be one; first the
    one that names it, if any, then those of the shortest spans."""
    parameters = {
        "request": request,
        "at": at,
        "slack": timedelta(milliseconds=1),
        "longest": _LONGEST_SPAN,
        "limit": limit,
    }
    rows = connection.execute(_OF_MOMENT, parameters).mappings()
    return [RefusedRequests(**row) for row in rows]


_SENTENCES = statement(
    """
    SELECT DISTINCT ON (source, reason) source, reason, sentence FROM ingest.refusal_counts
    WHERE status = 400 AND minute >= :since AND reason = ANY(CAST(:reasons AS text[]))
    ORDER BY source, reason, minute DESC
    """
)


def sentences(
    connection: Connection, reasons: Sequence[str], *, since: datetime
) -> Mapping[tuple[str, str], str]:
    """Return what senders of rejected deliveries were told last, by source and reason."""
    rows = connection.execute(_SENTENCES, {"reasons": list(reasons), "since": since})
    return {(row.source, row.reason): row.sentence for row in rows}


def _parameters(wanted: RefusalFilter) -> dict[str, Any]:
    return asdict(wanted) | {"longest": _LONGEST_SPAN}


def _merge(length: str) -> TextClause:
    """Return a statement that merges rows into one for each span of this length that ended by
    `:before`."""
    whole = f"date_bin('{length}', {{}}, TIMESTAMPTZ '2024-01-01 00:00+00')"
    span, before = whole.format("minute"), whole.format("CAST(:before AS timestamptz)")
    return statement(
        f"""
        WITH removed AS (
            DELETE FROM ingest.refusal_counts
            WHERE minute < {before} AND minute <> {span} RETURNING *
        ), merged AS (
            SELECT {span} AS minute, reason, source, client, CAST(sum(count) AS bigint) AS count,
                   min(first_at) AS first_at, max(last_at) AS last_at, {_OF_THE_LAST}
            FROM removed GROUP BY 1, 2, 3, 4
        ), ranked AS (
            SELECT merged.*, row_number() OVER (
                PARTITION BY minute, reason ORDER BY client = '', count DESC, source, client
            ) AS place
            FROM merged
        ), placed AS (
            SELECT minute, reason, source,
                   CASE WHEN place <= :addresses THEN client ELSE '' END AS client,
                   status, sentence, count, first_at, last_at, request
            FROM ranked
        )
        {_insert("placed")}
        """
    )


_TO_QUARTERS = _merge("15 minutes")
_TO_HOURS = _merge("1 hour")
_REMOVE_OLDEST = statement(
    """
    DELETE FROM ingest.refusal_counts WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM ingest.refusal_counts
        ORDER BY minute DESC, reason DESC, source DESC, client DESC OFFSET :kept
    ))
    """
)


def compact(
    connection: Connection,
    *,
    now: datetime,
    keep_minutes: timedelta,
    keep_quarters: timedelta,
    kept: int = KEPT,
) -> None:
    """Merge minutes older than `keep_minutes` into quarters of an hour, and quarters older than
    `keep_quarters` into hours; remove the oldest rows beyond `kept`."""
    for merge, age in ((_TO_QUARTERS, keep_minutes), (_TO_HOURS, keep_quarters)):
        connection.execute(merge, {"before": now - age, "addresses": ADDRESSES})
    connection.execute(_REMOVE_OLDEST, {"kept": kept})
