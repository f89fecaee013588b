"""Counting rows for as long as somebody waits, and no longer."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection

from ingest.store.sql import statement

_FIRST_SLICE, _LAST_SLICE = 100, 800
"""Rows that are read before the clock is looked at, at first: 30 ms if each comes from the disk.
Slices double while they are fast."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Rows, counted by their values."""

    counts: Counter[tuple[Any, ...]]
    is_whole: bool
    """Whether there are no more rows than these."""


Read = TypeVar("Read")


def in_time(
    read: Callable[[int, int], Read], *, first: int, most: int, budget_s: float
) -> Iterator[Read]:
    """Yield what is read of the first rows, then of twice as many each time, while there is time.

    Args:
        read: reads so many rows, beyond so many that are skipped.
        first: rows that are always read.
        most: rows that are read altogether.
        budget_s: seconds for the others. How long the rows before took tells how many there is
            time for.
    """
    done, size, left_s = 0, min(first, most), budget_s
    while size > 0:
        began = time.perf_counter()
        yield read(done, size)
        took_s = time.perf_counter() - began
        left_s -= took_s if done else 0
        done += size
        size = min(2 * size, most - done, int(size * left_s / max(took_s, 1e-9)))


def tally(connection: Connection, query: str, *, budget_s: float) -> Tally:
    """Count the rows of a query by their values, the first ones until the time is up.

    Args:
        connection: in whose transaction to read, with a cursor that ends here.
        query: a constant; its rows must come in the order of an index, without a sort before them.
        budget_s: seconds after which no further rows are asked for.
    """
    ends = time.perf_counter() + budget_s
    counts: Counter[tuple[Any, ...]] = Counter()
    is_whole, size = False, _FIRST_SLICE
    connection.execute(statement(f"DECLARE tally NO SCROLL CURSOR FOR {query}"))
    while not is_whole:
        rows = connection.exec_driver_sql(f"FETCH {size} FROM tally").all()
        counts.update(map(tuple, rows))
        is_whole = len(rows) < size
        if time.perf_counter() >= ends:
            break
        size = min(2 * size, _LAST_SLICE)
    connection.execute(statement("CLOSE tally"))
    return Tally(counts=counts, is_whole=is_whole)
