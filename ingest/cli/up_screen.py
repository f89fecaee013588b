"""What `ingest up` shows while it runs: messages, and how the pipeline is doing.

In a terminal the last line changes in place. Elsewhere there is a line when the pipeline falls
behind, each minute while it is, and when it has caught up.
"""

import shutil
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ingest import backlog_words
from ingest.store import causes
from ingest.store.pipeline import schedules
from ingest.store.reports import behind, totals
from ingest.store.reports.behind import Backlog
from ingest.store.reports.totals import Stats

EVERY_S = 1.0
"""Seconds between two counts in a terminal."""
EVERY_S_UNSEEN = 5.0
"""Likewise elsewhere, where only a backlog is told."""
_COUNT_SHARE = 10
"""Counting takes at most a tenth of the time; with millions of rows it happens rarely."""
_RATE_S = 10.0
"""Rates are of the last ten seconds."""
_REPEATED_S = 60.0
_LATE_S = 10.0
"""A run begins within a sweep or two."""
_BETWEEN = "  "


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How the pipeline is doing."""

    parts: tuple[str, ...]
    """What there is to tell, the most important first."""
    sentence: str
    """The same at length."""
    is_behind: bool = False

    def fit(self, width: int) -> str:
        """Return as many of the parts as fit in `width` characters."""
        line = self.parts[0]
        for part in self.parts[1:]:
            if len(line) + len(_BETWEEN) + len(part) <= width:
                line += _BETWEEN + part
        return line[:width]


class Screen:
    """Prints lines and, in a terminal, the status below them."""

    def __init__(self) -> None:
        self.is_terminal = sys.stdout.isatty()
        self._was_behind = False
        self._told_at = 0.0

    def say(self, text: str) -> None:
        """Print a message of this command."""
        self.line(f"ingest: {text}")

    def line(self, text: str) -> None:
        """Print a line above the status."""
        clear = "\r\x1b[K" if self.is_terminal else ""
        sys.stdout.write(f"{clear}{text}\n")
        sys.stdout.flush()

    def step(self, text: str) -> None:
        """Show in a terminal what is being done, until the next line."""
        if self.is_terminal:
            sys.stdout.write(f"\r\x1b[Kingest: {text}…")
            sys.stdout.flush()

    def show(self, status: Status | None, *, now: float) -> None:
        """Show the newest status; `now` is monotonic, in seconds. None: there is none yet."""
        if status is None:
            return
        if self.is_terminal:
            # What is wider than the terminal goes on in a further line, and is not cleared.
            width = shutil.get_terminal_size().columns - 1
            sys.stdout.write(f"\r\x1b[K{status.fit(width)}")
            sys.stdout.flush()
        elif status.is_behind and (not self._was_behind or now - self._told_at >= _REPEATED_S):
            self.say(status.sentence)
            self._told_at = now
        elif self._was_behind and not status.is_behind:
            self.say(status.sentence)
        self._was_behind = status.is_behind


class Counter(threading.Thread):
    """Counts in the background, so that a hanging database does not delay the supervisor."""

    def __init__(self, engine: Engine, *, every_s: float) -> None:
        """Count through `engine`, again after `every_s` seconds."""
        super().__init__(name="counter", daemon=True)
        self._engine = engine
        self._every_s = every_s
        self.newest: Status | None = None

    def run(self) -> None:
        """Count until the process ends."""
        earlier: deque[tuple[float, Stats]] = deque()
        while True:
            began = time.monotonic()
            try:
                with self._engine.connect() as connection:
                    counted, backlog = totals.read(connection), behind.read(connection)
                    due = schedules.soonest(connection)
            except SQLAlchemyError as error:
                sentence = causes.explain(error).sentence
                self.newest = Status(parts=(sentence,), sentence=sentence)
            else:
                while len(earlier) > 1 and began - earlier[0][0] > _RATE_S:
                    earlier.popleft()
                before = earlier[0] if earlier else None
                self.newest = describe(counted, backlog, began, before, due=due)
                earlier.append((began, counted))
            time.sleep(max(self._every_s, (time.monotonic() - began) * _COUNT_SHARE))


def describe(
    counted: Stats,
    backlog: Backlog,
    now: float,
    before: tuple[float, Stats] | None,
    *,
    due: tuple[str, float] | None = None,
) -> Status:
    """Return the status, with rates since the counts `before`, which have their time too; `due` is
    the processor whose next run is due first, and in how many seconds."""
    accepted_per_s = done_per_s = 0.0
    if before is not None:
        passed_s = now - before[0]
        accepted_per_s = (counted.deliveries.accepted - before[1].deliveries.accepted) / passed_s
        done_per_s = (counted.jobs.succeeded - before[1].jobs.succeeded) / passed_s
    dead, held = counted.jobs.dead, backlog.held
    parts = (
        backlog_words.short(backlog),
        f"in {accepted_per_s:,.0f}/s",
        f"done {max(0.0, done_per_s):,.0f}/s",
        *((f"dead {dead:,}",) if dead else ()),
        *((f"held {held:,}",) if held else ()),
        f"events {counted.events.total:,}",
        *((_next_run(*due),) if due is not None else ()),
    )
    return Status(
        parts=parts,
        sentence=f"{backlog_words.sentence(backlog)}.",
        is_behind=backlog.since is not None,
    )


def _next_run(processor: str, due_in_s: float) -> str:
    name = processor.rpartition(".")[2]
    if due_in_s < -_LATE_S:
        return f"{name} is overdue"
    minutes = due_in_s / 60
    return f"next {name} {f'in {minutes:,.0f} min' if minutes >= 1 else 'within a minute'}"
