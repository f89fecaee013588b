"""The queues with waiting rows, at a cost that does not grow with the number of rows."""

from sqlalchemy import TextClause

from ingest.store.sql import statement


def waiting_queues(table: str, condition: str, *, due: str) -> TextClause:
    """Return a statement that lists the queues of the rows of `table` that meet `condition`.

    It steps from queue to queue through an index on the queue and the column `due`, so a million
    rows in a queue cost as much as one. It steps backwards, because the rows due last are the
    newest: the dead entries that a long transaction makes the index keep are older. The arguments
    are constants, never input.
    """
    newest = f"ORDER BY queue DESC, {due} DESC LIMIT 1"
    return statement(
        f"""
        WITH RECURSIVE step AS (
            (SELECT queue FROM {table} WHERE {condition} {newest})
            UNION ALL
            SELECT (SELECT queue FROM {table} WHERE {condition} AND queue < step.queue {newest})
            FROM step WHERE step.queue IS NOT NULL
        )
        SELECT queue FROM step WHERE queue IS NOT NULL ORDER BY queue
        """
    )
