"""Which deliveries are traced: their stored headers name a trace that is recorded.

Asked only where traces are on, once for all ids of a message or a claim."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from ingest.store import arrays
from ingest.store.sql import statement

# The last two digits of a `traceparent` are flags, and the lowest says that the trace is recorded.
# (`strict`: otherwise a filter looks at the strings in the pairs instead of the pairs.)
_IS_TRACED = """
    d.headers @? 'strict $[*] ? (@[0] == "traceparent" && @[1] like_regex "-[0-9a-f][13579bdf]$")'
"""
_OF_DELIVERIES = statement(
    f"""
    SELECT asked.id, d.headers
    FROM unnest(CAST(:ids AS uuid[])) AS asked (id)
    CROSS JOIN LATERAL (
        SELECT headers FROM ingest.deliveries WHERE id = asked.id LIMIT 1
    ) AS d
    WHERE {_IS_TRACED}
    """
)
_OF_JOBS = statement(
    f"""
    SELECT j.id, j.attempt, d.headers
    FROM unnest(CAST(:ids AS bigint[])) AS asked (id)
    CROSS JOIN LATERAL (
        SELECT id, event, attempt FROM ingest.jobs WHERE id = asked.id LIMIT 1
    ) AS j
    CROSS JOIN LATERAL (
        SELECT headers FROM ingest.deliveries WHERE id = j.event LIMIT 1
    ) AS d
    WHERE {_IS_TRACED}
    """
)

Headers = list[list[str]]


class TracedJob(NamedTuple):
    """A job whose delivery is traced."""

    id: int
    attempt: int
    """The number of the last one."""
    headers: Headers
    """Of its delivery."""


def of_deliveries(connection: Connection, deliveries: Sequence[UUID]) -> dict[UUID, Headers]:
    """Return the headers of those deliveries that are traced, by their ids."""
    rows = connection.execute(_OF_DELIVERIES, {"ids": arrays.literal(deliveries)})
    return {row.id: row.headers for row in rows}


def of_jobs(connection: Connection, jobs: Sequence[int]) -> list[TracedJob]:
    """Return those jobs whose deliveries are traced."""
    rows = connection.execute(_OF_JOBS, {"ids": arrays.literal(jobs)})
    return [TracedJob(*row) for row in rows]
