"""Counts the refused requests of one receiver until its next report.

The event loop counts, a thread takes. What is held is bounded, whoever sends whatever, from
wherever, and however long the database is away.
"""

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from ingest.store.reports.refusal_counts import ADDRESSES, Key, RefusedRequests

_MOST_ROWS = 2_000
"""Held at most, but for one row a reason and source; some 500 bytes each."""


class RefusalCounts:
    """Refused requests, counted by minute, reason, source and address."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[Key, RefusedRequests] = {}
        self._addresses: Counter[tuple[datetime, str]] = Counter()
        """How many addresses have rows, by minute and reason."""
        self._shared: dict[tuple[str, str], datetime] = {}
        """The minute of the last row without an address, by reason and source."""

    def count(
        self,
        *,
        reason: str,
        source: str,
        client: str,
        status: int,
        sentence: str,
        at: datetime,
        request: UUID,
    ) -> None:
        """Count one request."""
        one = RefusedRequests(
            minute=at.replace(second=0, microsecond=0),
            reason=reason,
            source=source,
            client=client,
            status=status,
            sentence=sentence,
            count=1,
            first_at=at,
            last_at=at,
            request=request,
        )
        with self._lock:
            self._add(one)

    def take(self) -> list[RefusedRequests]:
        """Return all rows, and begin anew."""
        with self._lock:
            rows = list(self._rows.values())
            self._rows.clear()
            self._addresses.clear()
            self._shared.clear()
        return rows

    def hold_again(self, rows: Iterable[RefusedRequests]) -> None:
        """Hold rows again that could not be reported."""
        with self._lock:
            for row in rows:
                self._add(row)

    def _add(self, row: RefusedRequests) -> None:
        if row.key not in self._rows:
            row = self._placed(row)
        known = self._rows.get(row.key)
        self._rows[row.key] = row if known is None else _sum(known, row)
        if row.client and known is None:
            self._addresses[row.minute, row.reason] += 1
        elif not row.client:
            self._shared[row.reason, row.source] = row.minute

    def _placed(self, row: RefusedRequests) -> RefusedRequests:
        """Return a row without its address where its minute has no room for a further one. Where
        there is no room at all, it also counts for the last minute that has such a row."""
        if len(self._rows) >= _MOST_ROWS:
            minute = self._shared.get((row.reason, row.source), row.minute)
            return replace(row, client="", minute=minute)
        if self._addresses[row.minute, row.reason] >= ADDRESSES:
            return replace(row, client="")
        return row


def _sum(one: RefusedRequests, other: RefusedRequests) -> RefusedRequests:
    last = other if other.last_at >= one.last_at else one
    return replace(
        last,
        minute=one.minute,
        count=one.count + other.count,
        first_at=min(one.first_at, other.first_at),
    )
