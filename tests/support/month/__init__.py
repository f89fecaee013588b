"""A month of a shop: as many events as are asked for, and all that lies around them.

Of ten million 25,000 jobs are dead or discarded and 10,000 wait for a retry; 100,000 wait behind a
pause, 30,000 deliveries for a worker. One conversation has 100,000 messages.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

import psycopg

from tests.support.month import around, ledger, read_model

DAYS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Month:
    """When its events are received, and how many."""

    start: int
    """The first; milliseconds after 1970."""
    span: int
    """Milliseconds."""
    total: int
    """Events in them, whole blocks of `numbered.BLOCK`. Further ones come as fast."""

    @classmethod
    def until(cls, moment: datetime, total: int) -> Self:
        """Return the month that ends at a moment."""
        span = timedelta(days=DAYS)
        start = int((moment - span).timestamp() * 1000)
        return cls(start=start, span=span // timedelta(milliseconds=1), total=total)

    def number_at(self, moment: datetime) -> int:
        """Return how many events have been received by then."""
        return (int(moment.timestamp() * 1000) - self.start) * self.total // self.span

    def fill(self, connection: psycopg.Connection, first: int, end: int) -> None:
        """Store the events from number `first` to before `end`, which are whole blocks."""
        # The triggers would do row by row what `surround` does for all.
        connection.execute("SET session_replication_role = replica")
        values = {"start": self.start, "span": self.span, "total": self.total}
        for statement in (ledger.FILL, read_model.FILL):
            connection.execute(statement.encode(), values | {"first": first, "last": end - 1})

    def surround(self, connection: psycopg.Connection) -> None:
        """Store what lies around the events, which are there."""
        connection.execute("SET session_replication_role = replica")
        for statement in around.ONCE:
            connection.execute(statement.encode(), {"total": self.total})

    def bring_up_to_now(self, connection: psycopg.Connection) -> None:
        """Store anew what pages count back from now."""
        for statement in around.UP_TO_NOW:
            connection.execute(statement.encode())
