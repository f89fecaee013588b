"""The soak: minutes of mixed load with random faults, and what must not grow meanwhile."""

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psycopg
from rich.console import Console

from tests.faults.catalogue import Fault
from tests.faults.run import Row, Runner
from tests.faults.world import World
from tests.support.fleet import children_of

_SAMPLE_S = 5.0
_GROWTH = 1.15
_GROWTH_MIB = 10.0
"""What a process may have grown by in the second half: so much of itself, and so much besides."""
_DEAD_ROWS_S = 120.0
_DEAD_ROWS_AN_EVENT = 3
"""Autovacuum looks once a minute, and a fault may cost it a turn: what two minutes of the load
leave may lie there."""
_EMPTY_WITHIN_S = 30.0
"""A hint is lost (REDISPATCH_AFTER_S 10), a lease ends (LEASE_S 10), a retry waits (up to 10)."""


@dataclass(slots=True)
class Samples:
    """What was measured, every few seconds."""

    mib: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Resident memory of the largest process of each kind, MiB."""
    dead_rows: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    last_sizes_mib: dict[str, float] = field(default_factory=dict)


class Soak:
    """One soak on a world."""

    def __init__(self, world: World, runner: Runner, console: Console) -> None:
        self._world = world
        self._runner = runner
        self._console = console
        self._samples = Samples()

    def run(self, faults: Sequence[Fault], *, minutes: float) -> tuple[Row, list[str]]:
        """The row of its faults, and what grew, drifted or stayed behind."""
        self._world.fleet.each_s = (_SAMPLE_S, self._sample)
        row = self._runner.schedule(faults, duration_s=minutes * 60)
        self._world.fleet.each_s = None
        self._show()
        return row, [*self._growth(), *self._bloat(), *self._drift(), *self._backlog(row)]

    def _sample(self) -> None:
        largest: dict[str, float] = defaultdict(float)
        for name, member in self._world.fleet.members.items():
            kind = name.partition("-")[0]
            for pid in (member.pid, *children_of(member.pid)):
                largest[kind] = max(largest[kind], _resident_mib(pid))
        for kind, mib in largest.items():
            self._samples.mib[kind].append(mib)
        try:
            with self._world.connect() as connection:
                connection.execute("SET lock_timeout = '200ms'")  # a fault may hold the lock
                rows = connection.execute(_DEAD_ROWS).fetchall()
        except psycopg.Error:
            return  # it is one of the things that are broken
        for table, dead, size in rows:
            self._samples.dead_rows[table].append(dead)
            self._samples.last_sizes_mib[table] = size / 2**20

    def _show(self) -> None:
        for kind, mib in self._samples.mib.items():
            half = len(mib) // 2
            self._console.print(
                f"{kind}: {median(mib[:half]):.0f} MiB in the middle of the first half, "
                f"{median(mib[half:]):.0f} of the second; {max(mib):.0f} at most"
            )
        for table, dead in self._samples.dead_rows.items():
            size = self._samples.last_sizes_mib[table]
            self._console.print(
                f"{table}: {max(dead):,} dead rows at most, {size:.1f} MiB in the end"
            )

    def _growth(self) -> list[str]:
        wrong = []
        for kind, mib in self._samples.mib.items():
            half = len(mib) // 2
            # Not the most: poison takes 2 GiB for a moment, on purpose.
            before, after = median(mib[:half]), median(mib[half:])
            if kind not in ("postgres", "redis") and after > before * _GROWTH + _GROWTH_MIB:
                wrong.append(f"{kind} grew from {before:.0f} to {after:.0f} MiB")
        return wrong

    def _bloat(self) -> list[str]:
        limit = self._runner.rate * _DEAD_ROWS_S * _DEAD_ROWS_AN_EVENT
        return [
            f"{table} had {max(dead):,} dead rows"
            for table, dead in self._samples.dead_rows.items()
            if max(dead) > limit
        ]

    def _drift(self) -> list[str]:
        """`ingest stats` against a count of every row."""
        printed = subprocess.run(
            [sys.executable, "-m", "ingest", "stats", "--json"],
            cwd=self._world.home,
            env={"INGEST_DATABASE_URL": self._world.database_url},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        stats = json.loads(printed)
        with self._world.connect() as connection:
            counted = connection.execute(_FULL_COUNT).fetchone()
        shown = (
            stats["deliveries"]["accepted"],
            stats["deliveries"]["duplicates"],
            stats["events"]["total"],
            stats["jobs"]["succeeded"],
            stats["jobs"]["dead"],
        )
        return [] if shown == counted else [f"stats say {shown}, a full count {counted}"]

    def _backlog(self, row: Row) -> list[str]:
        self._console.print(f"all was worked on {row.drained_s:.1f} s after the last request")
        if row.drained_s > _EMPTY_WITHIN_S:
            return [f"the last work took {row.drained_s:.1f} s after the last request"]
        return []


def _resident_mib(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * 4096 / 2**20


_DEAD_ROWS = """
    SELECT s.relname, s.n_dead_tup, pg_total_relation_size(s.relid)
    FROM pg_stat_user_tables s
    WHERE s.relname IN ('unadmitted', 'events', 'duplicates', 'jobs', 'attempts')
"""
_FULL_COUNT = """
    SELECT (SELECT count(*) FROM deliveries d WHERE rejected IS NULL
            AND NOT EXISTS (SELECT FROM deliveries WHERE part_of = d.id)),
           (SELECT count(*) FROM duplicates), (SELECT count(*) FROM events),
           (SELECT count(*) FROM jobs WHERE state = 'succeeded'),
           (SELECT count(*) FROM jobs WHERE state = 'dead')
"""
