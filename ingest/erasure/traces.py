"""What stays in PostgreSQL's files after an erasure, and the statements that remove it."""

from collections.abc import Iterable

from ingest.store.address import SCHEMA

_ALWAYS = ("deliveries", "unadmitted", "events", "attempts", "erasures")
"""Rows of these are replaced by every erasure, or come and go with every event."""


def vacuum_statements(tables: Iterable[str], schema: str = SCHEMA) -> list[str]:
    """Return the statements that rewrite tables, so that no old row is left in their files.

    Statistics hold values of columns, so they are made anew and rewritten too.
    """
    names = dict.fromkeys((*_ALWAYS, *sorted(tables)))
    listed = ", ".join(f"{schema}.{name}" for name in names)
    return [
        f"VACUUM (FULL, ANALYZE) {listed};",
        "VACUUM FULL pg_catalog.pg_statistic;",
        "CHECKPOINT;",
    ]
