"""How often something may start: `50/s`, or at most so many starts in any window of some length.

A log of starts is a list of (Unix time, number). Starts of one hundredth of the window are kept as
one entry, at the time of the latest, so that a log is short and never forgets too early.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

MOST_AT_ONCE = 100_000
MOST_STARTS = 1_000_000
LONGEST_WINDOW_S = 86_400
_PARTS = 100
"""Entries that a log has for a window, at most; so long a part of it is what their sum may lose."""
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_RATE = re.compile(r"\s*([0-9]{1,12})\s*/\s*([0-9]{0,12})\s*([smhd])\s*", re.ASCII)
PATTERN = (
    "^([1-9][0-9]{0,5}|1000000)/"
    "(([1-9][0-9]{0,3})?s|([1-9][0-9]{0,2})?m|([1-9]|1[0-9]|2[0-4])?h|1?d)$"
)
"""Rates as they are to be written, for documents. What is read has more forms: `parse`."""

Log = Sequence[tuple[float, int]]
"""Starts: when, oldest first, and how many."""


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `starts` in any window of `window_s` seconds."""

    starts: int
    window_s: int

    def __str__(self) -> str:
        for unit, length in reversed(_UNITS.items()):
            if self.window_s % length == 0:
                several = self.window_s // length
                return f"{self.starts}/{several if several > 1 else ''}{unit}"
        raise AssertionError("a window is whole seconds")

    def allowed(self, log: Log, now: float) -> int:
        """Return how many may start now."""
        return max(0, self.starts - sum(count for _, count in self.of_window(log, now)))

    def next_at(self, log: Log, now: float) -> float:
        """Return from when on one may start; `now`, if one may already."""
        kept = self.of_window(log, now)
        missing = sum(count for _, count in kept) - self.starts + 1
        allowed_at = now
        for at, count in kept:
            if missing <= 0:
                break
            missing -= count
            allowed_at = at + self.window_s
        return allowed_at

    def noted(self, log: Log, now: float, starts: int) -> list[tuple[float, int]]:
        """Return the log with so many `starts` now, without what no window holds any more."""
        kept = self.of_window(log, now)
        if starts <= 0:
            return kept
        if kept and self._part(kept[-1][0]) == self._part(now):
            _, before = kept.pop()
            starts += before
        return [*kept, (now, starts)]

    def of_window(self, log: Log, now: float) -> list[tuple[float, int]]:
        """Return the starts of the window that ends now. The clock may have been set back: what is
        later than now counts as now."""
        return [(min(at, now), count) for at, count in log if at + self.window_s > now]

    def _part(self, at: float) -> int:
        return math.floor(at * _PARTS / self.window_s)


def parse(value: str) -> Rate:
    """Return the rate that a text names: `50/s`, `1000/m`, `500/h`, `10/5s`.

    Raises:
        ValueError: it names none; the message says what to write.
    """
    matched = _RATE.fullmatch(value)
    if matched is None:
        raise ValueError(f"{value!r} is no rate: write 50/s, 1000/m, 500/h or 10/5s")
    count, several, unit = matched.groups()
    rate = Rate(int(count), int(several or 1) * _UNITS[unit])
    if not 0 < rate.starts <= MOST_STARTS:
        raise ValueError(f"{value!r}: a rate allows 1 to {MOST_STARTS:,} starts")
    if not 0 < rate.window_s <= LONGEST_WINDOW_S:
        raise ValueError(f"{value!r}: the window of a rate is 1 second to 1 day")
    return rate


def check_concurrency(value: int, *, option: str) -> None:
    """Raise ValueError, with a sentence, unless so many jobs may run at once."""
    if not 0 < value <= MOST_AT_ONCE:
        raise ValueError(f"{option} is 1 to {MOST_AT_ONCE:,} jobs at once")
