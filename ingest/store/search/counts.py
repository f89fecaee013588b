"""How many events a selection means: exactly where that is cheap, otherwise as well as may be said
at once."""

import enum
import time
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from ingest.store.search.filters import EventFilter, where
from ingest.store.search.id_range import Span
from ingest.store.search.scan import walk
from ingest.store.sql import statement


class Kind(enum.StrEnum):
    """What a number is."""

    EXACT = "exact"
    AT_LEAST = "at least"
    """So many were counted, when there were enough or the time was up."""
    ABOUT = "about"
    """The planner's estimate, from the last time that the table was analysed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """A number of events."""

    number: int
    kind: Kind

    @property
    def exact(self) -> bool:
        """Return whether it is neither a bound nor an estimate."""
        return self.kind is Kind.EXACT


def count(
    connection: Connection,
    selection: EventFilter,
    *,
    at_most: int = 10_000,
    budget_s: float = 0.1,
) -> Count:
    """Count the events of a selection.

    Args:
        connection: in whose transaction to read.
        selection: which events.
        at_most: one by one up to here. All events, and all that succeeded, are counted whatever
            their number.
        budget_s: seconds after which to count no further.
    """
    if selection.is_everything:
        return Count(number=connection.execute(_ALL).scalar_one(), kind=Kind.EXACT)
    if selection.state == "succeeded" and replace(selection, state=None).is_everything:
        bound = {"most": min(at_most, _MOST_UNFINISHED)}
        if connection.execute(_UNFINISHED, bound).scalar_one() <= bound["most"]:
            succeeded = connection.execute(_SUCCEEDED, bound).scalar_one()
            return Count(number=succeeded, kind=Kind.EXACT)
    counted, is_whole = _counted(connection, selection, at_most, budget_s)
    if is_whole and counted <= at_most:
        return Count(number=counted, kind=Kind.EXACT)
    estimate = _estimate(connection, selection) if _is_of_rows(selection) else 0
    if estimate > at_most and estimate > connection.execute(_ALL).scalar_one() * _RELIABLE:
        return Count(number=estimate, kind=Kind.ABOUT)
    return Count(number=counted, kind=Kind.AT_LEAST)


def _counted(
    connection: Connection, selection: EventFilter, at_most: int, budget_s: float
) -> tuple[int, bool]:
    """Return how many were counted, and whether that was all of the list."""
    began = time.perf_counter()
    counted = 0
    for part in walk(connection, selection, Span(), select=_NUMBER, wanted=at_most + 1):
        counted += sum(row["number"] for row in part.rows)
        if part.reached is None:
            return counted, True
        if counted > at_most or time.perf_counter() - began >= budget_s:
            break
    return counted, False


def _is_of_rows(selection: EventFilter) -> bool:
    """Return whether every condition is one on a column that the planner has statistics of."""
    return selection == EventFilter(
        types=selection.types,
        source=selection.source,
        since=selection.since,
        until=selection.until,
    )


def _estimate(connection: Connection, selection: EventFilter) -> int:
    condition = where(selection)
    query = statement(f"EXPLAIN (FORMAT JSON) SELECT FROM ingest.events WHERE {condition.sql}")
    (explained,) = connection.execute(query, condition.parameters).scalar_one()
    return int(explained["Plan"]["Plan Rows"])


_RELIABLE = 0.02
"""Of a smaller part of all events the planner's histograms, a hundred buckets each, say little."""
_NUMBER = "SELECT count(*) AS number FROM hits"
_ALL = statement(
    "SELECT CAST(coalesce(sum(rows), 0) AS bigint) FROM ingest.totals WHERE counted = 'events'"
)
_MOST_UNFINISHED = 2_000
"""Up to so many unfinished jobs are read to count what succeeded: 5 ms, or half a second from the
disk."""
_WHICH = """
    (SELECT {0} FROM ingest.jobs WHERE due_at IS NOT NULL ORDER BY queue, due_at LIMIT :most + 1)
    UNION ALL (SELECT {0} FROM ingest.jobs WHERE lease_until IS NOT NULL
               ORDER BY lease_until LIMIT :most + 1)
    UNION ALL (SELECT {0} FROM ingest.jobs WHERE state = 'dead' AND discarded_at IS NULL
               ORDER BY event LIMIT :most + 1)
    UNION ALL (SELECT {0} FROM ingest.jobs WHERE discarded_at IS NOT NULL
               ORDER BY event LIMIT :most + 1)
"""
"""Jobs that did not succeed, which small indexes know. In the order of those indexes, so that the
planner takes them."""
# The indexes alone tell how many they are.
_UNFINISHED = statement(f"SELECT count(*) FROM ({_WHICH.format('')}) AS unfinished")
# All events but those that lack a job or have one that did not succeed.
_SUCCEEDED = statement(
    f"""
    WITH unfinished AS MATERIALIZED ({_WHICH.format("event")})
    SELECT CAST(coalesce(sum(CASE counted WHEN 'events' THEN rows ELSE -rows END), 0) AS bigint)
               - (SELECT count(DISTINCT event) FROM unfinished) AS succeeded
    FROM ingest.totals WHERE counted IN ('events', 'unhandled')
    """
)
