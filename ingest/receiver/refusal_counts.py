"""Counts the refused requests of one receiver until its next report.

The event loop counts, a thread takes. What is held is bounded, whoever sends whatever, from
wherever, and however long the database is away.
"""

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from ingest.store.reports.refusal_counts import ADDRESSES, Key, RefusedRequests

_MOST_ROWS = 2_000
"""Held at most, but for one row a reason and source; some 500 bytes each."""


@dataclass(slots=True)
class _Row:
    """What is held beside the key; it grows in place, since the event loop counts a flood."""

    status: int
    sentence: str
    count: int
    first_at: datetime
    last_at: datetime
    request: UUID

    def add(self, other: "_Row") -> None:
        self.count += other.count
        self.first_at = min(self.first_at, other.first_at)
        if other.last_at >= self.last_at:
            self.last_at = other.last_at
            self.status, self.sentence = other.status, other.sentence
            self.request = other.request


class RefusalCounts:
    """Refused requests, counted by minute, reason, source and address."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[Key, _Row] = {}
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
        key = Key(at.replace(second=0, microsecond=0), reason, source, client)
        with self._lock:
            self._add(key, _Row(status, sentence, 1, at, at, request))

    def take(self) -> list[RefusedRequests]:
        """Return all rows, and begin anew."""
        with self._lock:
            rows = self._rows
            self._rows = {}
            self._addresses.clear()
            self._shared.clear()
        return [
            RefusedRequests(
                **key._asdict(),
                status=row.status,
                sentence=row.sentence,
                count=row.count,
                first_at=row.first_at,
                last_at=row.last_at,
                request=row.request,
            )
            for key, row in rows.items()
        ]

    def hold_again(self, rows: Iterable[RefusedRequests]) -> None:
        """Hold rows again that could not be reported."""
        with self._lock:
            for row in rows:
                held = _Row(
                    row.status, row.sentence, row.count, row.first_at, row.last_at, row.request
                )
                self._add(row.key, held)

    def _add(self, key: Key, row: _Row) -> None:
        if key not in self._rows:
            key = self._placed(key)
        known = self._rows.get(key)
        if known is not None:
            known.add(row)
            return
        self._rows[key] = row
        if key.client:
            self._addresses[key.minute, key.reason] += 1
        else:
            self._shared[key.reason, key.source] = key.minute

    def _placed(self, key: Key) -> Key:
        """Return a key without its address where its minute has no room for a further one. Where
        there is no room at all, it also counts for the last minute that has such a row."""
        if len(self._rows) >= _MOST_ROWS:
            minute = self._shared.get((key.reason, key.source), key.minute)
            return key._replace(client="", minute=minute)
        if self._addresses[key.minute, key.reason] >= ADDRESSES:
            return key._replace(client="")
        return key
