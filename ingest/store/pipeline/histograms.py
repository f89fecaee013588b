"""Durations as counts in buckets: what is stored of them, and what that tells.

A bucket holds durations up to twice as long as the one before. Each is divided into four parts of
one ratio, so that a percentile is told within a tenth of the true one. Prometheus is told whole
buckets. Rows that a release before this one stored do not know their part.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

BUCKETS = 24
"""The last one holds everything longer than two hours and twenty minutes."""
PARTS = 4
_RATIO = 2 ** (1 / PARTS)
_LAST = BUCKETS * PARTS
CELLS = _LAST + 1
_MANTISSAS = tuple(0.5 * _RATIO**part for part in range(1, PARTS))
_WIDTHS = tuple(_RATIO ** (part + 1) - _RATIO**part for part in range(PARTS))
"""The share of each part in its bucket; they add up to 1, but for rounding."""
_ALMOST = 1 - 1e-9
"""Allows for that rounding: the last part of a bucket is reached with the last of its counts."""


class Place(NamedTuple):
    """Where a duration is counted."""

    bucket: int
    part: int
    """1 to `PARTS`; 0: not known, or there are none, as below 1 ms."""


def bucket(seconds: float) -> int:
    """Return a duration's bucket: 0 below 1 ms, k from 2^(k-1) ms to below 2^k ms."""
    if seconds < 0.001:
        return 0
    return min(math.frexp(seconds * 1000)[1], BUCKETS)


def cell(seconds: float) -> int:
    """Return a duration's cell: the parts of all buckets are numbered from 1 on; 0 below 1 ms."""
    if seconds < 0.001:
        return 0
    mantissa, number = math.frexp(seconds * 1000)
    return min((number - 1) * PARTS + bisect_right(_MANTISSAS, mantissa) + 1, _LAST)


def place(cell: int) -> Place:
    """Return where durations of a cell are stored."""
    return Place((cell + PARTS - 1) // PARTS, (cell - 1) % PARTS + 1 if cell else 0)


class Counted(NamedTuple):
    """Durations, counted once for all who keep them."""

    cells: Mapping[int, int]
    """How many are in each cell."""
    total_s: float
    """Their sum, in seconds."""


def counted(seconds: Collection[float]) -> Counted:
    """Count durations. One below 0, of a clock that was put back, counts as 0."""
    return Counted(Counter(map(cell, seconds)), sum(max(0.0, second) for second in seconds))


def by_bucket(counts: Iterable[int]) -> list[int]:
    """Return the counts of whole buckets, from those of all cells."""
    below, *rest = counts
    return [below, *(sum(rest[start : start + PARTS]) for start in range(0, _LAST, PARTS))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Counts by duration, one for each cell. What is known by its bucket only is spread over it."""

    counts: tuple[float, ...] = (0,) * CELLS

    @property
    def total(self) -> int:
        """Return the count over all cells."""
        return round(sum(self.counts))

    def percentile(self, share: float) -> float | None:
        """Estimate the seconds that a `share` (0 to 1) did not exceed; None without counts.

        It is at most 9.1 % from the true one, if that lies between 1 ms and four hours, and nothing
        was spread.
        """
        rank, passed, last = share * self.total * _ALMOST, 0.0, None
        for number, count in enumerate(self.counts):
            if count:
                passed, last = passed + count, number
                if passed >= rank:
                    break
        return None if last is None else _middle(last)


class Counts:
    """Counts that are added up to a histogram."""

    __slots__ = ("_cells",)

    def __init__(self) -> None:
        self._cells: list[float] = [0] * CELLS

    def add(self, place: Place, count: int) -> None:
        """Add a stored count."""
        bucket, part = place
        first = (bucket - 1) * PARTS + 1
        if bucket == 0:
            self._cells[0] += count
        elif part:
            self._cells[first + part - 1] += count
        else:
            for number, width in enumerate(_WIDTHS):
                self._cells[first + number] += count * width

    def read(self) -> Histogram:
        """Return the histogram."""
        return Histogram(counts=tuple(self._cells))


def bounds(cell: int) -> tuple[float, float]:
    """Return the bounds of a cell, in seconds."""
    if cell == 0:
        return 0.0, 0.001
    bucket, part = place(cell)
    edges = (0.5, *_MANTISSAS, 1.0)
    return math.ldexp(edges[part - 1], bucket) / 1000, math.ldexp(edges[part], bucket) / 1000


def _middle(cell: int) -> float:
    """Return the duration that is off from either bound by the same ratio; half a ms below 1 ms."""
    low, high = bounds(cell)
    return math.sqrt(low * high) if low else high / 2
