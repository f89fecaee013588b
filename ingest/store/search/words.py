"""Which values there are to search by: what the search field completes."""

from dataclasses import dataclass

from sqlalchemy import Connection

from ingest.store.reports.failures import ERROR_TYPE
from ingest.store.search.distinct import SOURCES, TYPES
from ingest.store.sql import statement

MOST = 500
"""Of each kind; more are not shown."""
_EXAMINED = 50
"""Jobs whose errors are told besides those that were recorded: the newest dead ones, and the first
that are due."""
_RECORDED = 2_000
"""Groups of failures whose errors are told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """Values of the filters, each in its order."""

    types: tuple[str, ...]
    sources: tuple[str, ...]
    processors: tuple[str, ...]
    errors: tuple[str, ...]


def words(connection: Connection) -> Words:
    """Return the types and sources of events, the processors, and the errors of jobs.

    Errors are those that were recorded, and those of a few jobs that are dead or retrying, which
    the relay may not know yet.
    """
    rows = connection.execute(_WORDS, {"most": MOST}).all()
    return Words(
        **{kind: tuple(sorted(row.word for row in rows if row.kind == kind)) for kind in _KINDS}
    )


_KINDS = ("types", "sources", "processors", "errors")
_WORDS = statement(
    f"""
    WITH RECURSIVE {TYPES}, {SOURCES}, failing AS MATERIALIZED (
        (SELECT id, attempt FROM ingest.jobs WHERE state = 'dead' AND discarded_at IS NULL
         ORDER BY event DESC LIMIT {_EXAMINED})
        UNION ALL
        SELECT id, attempt FROM (
            SELECT id, attempt, state FROM ingest.jobs WHERE due_at IS NOT NULL
            ORDER BY queue, due_at LIMIT {_EXAMINED}
        ) AS waiting WHERE state = 'retrying'
    )
    (SELECT 'types' AS kind, type AS word FROM known WHERE type IS NOT NULL LIMIT :most)
    UNION ALL
    (SELECT 'sources', slug FROM origin WHERE slug IS NOT NULL LIMIT :most)
    UNION ALL
    (SELECT 'processors', name FROM ingest.processors ORDER BY name LIMIT :most)
    UNION ALL
    (SELECT 'errors', error_type FROM (
         SELECT {ERROR_TYPE} AS error_type
         FROM failing CROSS JOIN LATERAL (
             SELECT error_type, outcome FROM ingest.attempts
             WHERE job = failing.id AND number = failing.attempt LIMIT 1
         ) AS a
         UNION
         SELECT error_type FROM (
             SELECT error_type FROM ingest.failure_groups ORDER BY id DESC LIMIT {_RECORDED}
         ) AS recorded
     ) AS errors LIMIT :most)
    """
)
