"""Deliveries that were signed and hold no event: listed, and by reason."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import Connection, RowMapping, TextClause

from ingest.ids import first_id
from ingest.store.sql import statement
from ingest.store.tally import in_time

EXAMINED = 5_000
"""So many rejected deliveries, the newest, are looked at for a page or a count at most."""
FIRST = 100
"""So many are always looked at, and others while there is time: 30 ms if each comes from the disk,
where 5,000 take a second."""
BUDGET_S = 0.02
_EPOCH = datetime.fromtimestamp(0, UTC)
_NONE, _ALL = UUID(int=0), UUID(int=2**128 - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedDelivery:
    """A signed request, or an element of one, that is no event."""

    id: UUID
    source: str
    received_at: datetime
    rejected: str
    """Why: the reason's slug."""
    size: int
    """Bytes of its body."""
    part_of: UUID | None
    """The delivery that it is an element of, which was answered 200; None: it is a whole one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedFilter:
    """Which rejected deliveries are meant. None: whatever it is."""

    since: datetime | None = None
    until: datetime | None = None
    source: str | None = None
    reason: str | None = None
    text: str | None = None
    """A part of the reason or of the source, in any case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedPage:
    """A part of the list, the newest first."""

    deliveries: tuple[RejectedDelivery, ...]
    older: UUID | None
    """What to give as `before` for the next page; None: there are no older ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedTotal:
    """The rejected deliveries of a source for one reason."""

    reason: str
    source: str
    deliveries: int
    first_seen: datetime
    last_seen: datetime
    example: UUID
    is_least: bool = False
    """Whether there may be more: only the newest deliveries were looked at."""


# The filter is applied to what was read: the small index of rejected deliveries is in their order,
# and knows no source.
_EXAMINED = """
    SELECT id, source, received_at, rejected, part_of, octet_length(body) AS size
    FROM ingest.deliveries
    WHERE rejected IS NOT NULL AND id >= CAST(:first AS uuid) AND id < CAST(:last AS uuid)
    ORDER BY id DESC OFFSET :skip LIMIT :examined
"""
_MATCHES = """
    (CAST(:source AS text) IS NULL OR source = :source)
    AND (CAST(:reason AS text) IS NULL OR rejected = :reason)
    AND (CAST(:text AS text) IS NULL
         OR strpos(lower(concat_ws(E'\\n', rejected, source)), lower(CAST(:text AS text))) > 0)
"""
_PAGE = statement(
    f"""
    WITH examined AS MATERIALIZED ({_EXAMINED})
    SELECT id, source, received_at, rejected, part_of, coalesce(size, 0) AS size,
           (SELECT count(*) FROM examined) AS examined,
           (SELECT id FROM examined ORDER BY id LIMIT 1) AS reached
    FROM (SELECT true) AS once LEFT JOIN (
        SELECT * FROM examined WHERE {_MATCHES} ORDER BY id DESC LIMIT :limit
    ) AS matching ON true
    ORDER BY id DESC
    """
)


def newest(
    connection: Connection, wanted: RejectedFilter, *, limit: int, before: UUID | None = None
) -> RejectedPage:
    """Return a page. It may hold fewer than `limit`, or none, and yet have a next one: no more than
    `EXAMINED` are looked at."""
    deliveries: list[RejectedDelivery] = []
    reached: UUID | None = None
    for rows, is_last in _in_time(connection, _PAGE, wanted, before, {"limit": limit + 1}):
        deliveries += [
            RejectedDelivery(**{name: row[name] for name in RejectedDelivery.__slots__})
            for row in rows
            if row["id"] is not None
        ]
        if len(deliveries) > limit:
            return RejectedPage(
                deliveries=tuple(deliveries[:limit]), older=deliveries[limit - 1].id
            )
        reached = None if is_last else rows[0]["reached"]
        if is_last:
            break
    return RejectedPage(deliveries=tuple(deliveries), older=reached)


def _in_time(
    connection: Connection,
    query: TextClause,
    wanted: RejectedFilter,
    before: UUID | None,
    parameters: Mapping[str, object],
) -> Iterator[tuple[Sequence[RowMapping], bool]]:
    """Return what a query finds among the newest deliveries, then among as many more as there is
    time for; each time with whether there are no further ones."""
    bounds = {**_parameters(wanted, before), **parameters}

    def read(skip: int, limit: int) -> tuple[Sequence[RowMapping], bool]:
        of_slice = bounds | {"skip": skip, "examined": limit}
        rows = connection.execute(query, of_slice).mappings().all()
        return rows, rows[0]["examined"] < limit

    return in_time(read, first=FIRST, most=EXAMINED, budget_s=BUDGET_S)


_BY_REASON = statement(
    f"""
    WITH examined AS MATERIALIZED ({_EXAMINED})
    SELECT (SELECT count(*) FROM examined) AS examined, matching.*
    FROM (SELECT true) AS once LEFT JOIN (
        SELECT rejected AS reason, source, count(*) AS deliveries, min(received_at) AS first_seen,
               max(received_at) AS last_seen, (array_agg(id ORDER BY id DESC))[1] AS example
        FROM examined WHERE {_MATCHES} GROUP BY rejected, source
    ) AS matching ON true
    """
)


def by_reason(connection: Connection, wanted: RejectedFilter) -> Sequence[RejectedTotal]:
    """Group the newest that are meant by reason and source, the most first."""
    totals: dict[tuple[str, str], RejectedTotal] = {}
    is_whole = False
    for rows, is_whole in _in_time(connection, _BY_REASON, wanted, None, {}):
        for row in rows:
            if row["reason"] is not None:
                total = RejectedTotal(**{name: row[name] for name in _OF_TOTAL})
                key = (total.reason, total.source)
                totals[key] = _together(totals[key], total) if key in totals else total
        if is_whole:
            break
    most_first = sorted(totals.values(), key=lambda one: (-one.deliveries, one.reason, one.source))
    return [replace(total, is_least=not is_whole) for total in most_first]


_OF_TOTAL = ("reason", "source", "deliveries", "first_seen", "last_seen", "example")


def _together(newer: RejectedTotal, older: RejectedTotal) -> RejectedTotal:
    return replace(
        newer,
        deliveries=newer.deliveries + older.deliveries,
        first_seen=min(newer.first_seen, older.first_seen),
        last_seen=max(newer.last_seen, older.last_seen),
    )


def _parameters(wanted: RejectedFilter, before: UUID | None) -> dict[str, object]:
    last = _ALL if wanted.until is None else first_id(max(wanted.until, _EPOCH))
    return {
        "first": _NONE if wanted.since is None else first_id(max(wanted.since, _EPOCH)),
        "last": last if before is None else min(before, last),
        "source": wanted.source,
        "reason": wanted.reason,
        "text": wanted.text,
    }
