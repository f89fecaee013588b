"""Counting rows for as long as somebody waits, and no longer."""

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from ingest.store.sql import statement

_SLICE = 500
"""Rows that are read before the clock is looked at: 10 to 50 ms if each comes from the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Rows, counted by their values."""

    counts: Counter[tuple[Any, ...]]
    is_whole: bool
    """Whether there are no more rows than these."""


def tally(connection: Connection, query: str, *, budget_s: float) -> Tally:
    """Count the rows of a query by their values, the first ones until the time is up.

    Args:
        connection: in whose transaction to read, with a cursor that ends here.
        query: a constant; its rows must come in the order of an index, without a sort before them.
        budget_s: seconds after which no further rows are asked for.
    """
    ends = time.perf_counter() + budget_s
    counts: Counter[tuple[Any, ...]] = Counter()
    is_whole = False
    connection.execute(statement(f"DECLARE tally NO SCROLL CURSOR FOR {query}"))
    while not is_whole:
        rows = connection.exec_driver_sql(f"FETCH {_SLICE} FROM tally").all()
        counts.update(map(tuple, rows))
        is_whole = len(rows) < _SLICE
        if time.perf_counter() >= ends:
            break
    connection.execute(statement("CLOSE tally"))
    return Tally(counts=counts, is_whole=is_whole)
