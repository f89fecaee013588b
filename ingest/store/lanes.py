"""Which queues have something waiting, at a cost that does not grow with what waits."""

from sqlalchemy import TextClause

from ingest.store.sql import statement


def waiting_queues(table: str, condition: str) -> TextClause:
    """A statement that lists the queues of the rows of `table` that meet `condition`.

    It steps from queue to queue through an index that begins with the queue, so a million rows in
    one queue cost as much as one. Both arguments are our own constants.
    """
    return statement(
        f"""
        WITH RECURSIVE step AS (
            (SELECT queue FROM {table} WHERE {condition} ORDER BY queue LIMIT 1)
            UNION ALL
            SELECT (SELECT queue FROM {table} WHERE {condition} AND queue > step.queue
                    ORDER BY queue LIMIT 1)
            FROM step WHERE step.queue IS NOT NULL
        )
        SELECT queue FROM step WHERE queue IS NOT NULL
        """
    )
