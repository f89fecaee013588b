"""What attempts failed with: it may name a person, whatever event it was."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from ingest.store.pipeline import jobs
from ingest.store.sql import statement

_ROWS = 2_000
_READ = statement(
    f"""
    SELECT job, number, error_message, traceback FROM ingest.attempts
    WHERE (job, number) > (CAST(:job AS bigint), CAST(:number AS integer))
      AND (error_message IS NOT NULL OR traceback IS NOT NULL)
    ORDER BY job, number LIMIT {_ROWS}
    """
)


def after(connection: Connection, last: Sequence[int] | None) -> Sequence[Any]:
    """Return job, number, message and traceback of the failed attempts of the next batch."""
    job, number = last or (0, 0)
    return connection.execute(_READ, {"job": job, "number": number}).all()


def forget(connection: Connection, attempts: Sequence[tuple[int, int]]) -> int:
    """Erase what attempts failed with; return how many."""
    return jobs.forget_errors(connection, attempts)
