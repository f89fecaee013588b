"""`ingest top`: the pipeline, live, in a terminal."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text
from sqlalchemy import Connection

from ingest import backlog_words
from ingest.cli import output
from ingest.cli.database import CommandError, database
from ingest.store.pipeline import metrics, processors
from ingest.store.pipeline.histograms import Histogram
from ingest.store.pipeline.metrics import ANSWER, FAILED, REFUSED, SUCCEEDED
from ingest.store.pipeline.processors import ProcessorRecord
from ingest.store.reports import behind, failures, heartbeats
from ingest.store.reports.behind import Backlog
from ingest.store.reports.failures import FailureGroup
from ingest.store.reports.heartbeats import ProcessRecord

_PERIOD = timedelta(minutes=5)
"""What rates, times and failures are of."""
_SHARE = 10
"""Reading takes at most a tenth of the time, however much waits."""
_GROUPS = 5
_ROWS_BESIDE = 12
"""Lines of a screen that are not of processors."""
_LEAST_ROWS = 3


def top(
    every: Annotated[
        float, typer.Option(min=1, max=3_600, help="Seconds from one look to the next.")
    ] = 2,
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
) -> None:
    """Show what is behind, rates, processors and failures, live. Ctrl-C ends it."""
    if not once and not output.is_terminal():
        raise CommandError(
            "This is no terminal: use --once, or `ingest stats`.", reason="no_terminal"
        )
    with database() as engine:
        if once:
            with engine.connect() as connection:
                output.console().print(frame(read(connection), height=1_000))
            return
        terminal = output.console()
        with Live(console=terminal, screen=True, auto_refresh=False) as live:
            while True:
                began = time.monotonic()
                with engine.connect() as connection:
                    seen = read(connection)
                live.update(frame(seen, height=terminal.height), refresh=True)
                took_s = time.monotonic() - began
                time.sleep(max(every - took_s, _SHARE * took_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The pipeline at one moment, and what it did lately."""

    backlog: Backlog
    measured_s: float
    """How many seconds of the last minutes were measured."""
    accepted: int
    refused: int
    succeeded: Mapping[str, Histogram]
    failed: Mapping[str, Histogram]
    """By processor."""
    processors: Sequence[ProcessorRecord]
    processes: Sequence[ProcessRecord]
    groups: Sequence[FailureGroup]
    """Of the jobs that fail, the largest first."""


def read(connection: Connection) -> Seen:
    """Look at everything once."""
    backlog = behind.read(connection)
    since = backlog.now.replace(second=0, microsecond=0) - _PERIOD
    begins = metrics.counted_since(connection, since=since)
    answers = metrics.by_label(connection, ANSWER, since=since)
    refused = metrics.by_label(connection, REFUSED, since=since)
    return Seen(
        backlog=backlog,
        measured_s=0.0 if begins is None else max(1.0, (backlog.now - begins).total_seconds()),
        accepted=sum(histogram.total for histogram in answers.values()),
        refused=sum(histogram.total for histogram in refused.values()),
        succeeded=metrics.by_label(connection, SUCCEEDED, since=since),
        failed=metrics.by_label(connection, FAILED, since=since),
        processors=processors.all_of_them(connection),
        processes=heartbeats.all_of_them(connection),
        groups=failures.groups(connection, now=datetime.now(UTC)).groups[:_GROUPS],
    )


def frame(seen: Seen, *, height: int) -> RenderableType:
    """Return what is shown, in at most `height` lines of 80 columns."""
    rows = max(_LEAST_ROWS, height - _ROWS_BESIDE - len(seen.groups))
    is_late = seen.backlog.since is not None
    return Group(
        Text(
            f"{backlog_words.sentence(seen.backlog)}.", style="bold yellow" if is_late else "bold"
        ),
        Text(_traffic(seen)),
        Text(_alive(seen.processes), style="dim"),
        Text(),
        _processors(seen, rows),
        Text(),
        _failures(seen.groups),
    )


def _traffic(seen: Seen) -> str:
    done = sum(histogram.total for histogram in seen.succeeded.values())
    failed = sum(histogram.total for histogram in seen.failed.values())
    return (
        f"last 5 min: {_rate(seen.accepted, seen)} accepted, {_rate(done, seen)} done,"
        f" {failed:,} failed, {seen.refused:,} refused"
    )


def _alive(processes: Sequence[ProcessRecord]) -> str:
    kinds = ("receiver", "worker", "relay", "console")
    alive = [process.kind for process in processes if process.alive]
    lost = len(processes) - len(alive)
    counts = ", ".join(output.number_of(alive.count(kind), kind) for kind in kinds)
    return f"{counts} alive" + (f"; {lost:,} unresponsive" if lost else "")


def _processors(seen: Seen, rows: int) -> Table:
    """Return the processors, the busiest first; those without a row are counted."""
    table = _table("processor", "per min", "p50", "p95", "failed", "waiting", "running", "dead")
    order = sorted(seen.processors, key=lambda record: _weight(seen, record), reverse=True)
    for record in order[:rows]:
        durations = seen.succeeded.get(record.name, Histogram())
        failed = seen.failed.get(record.name, Histogram()).total
        table.add_row(
            Text(f"{record.name}{_held_back(record)}"),
            _rate(durations.total, seen, unit=""),
            _duration(durations.percentile(0.5)),
            _duration(durations.percentile(0.95)),
            Text(f"{failed:,}", style="red" if failed else "dim"),
            f"{record.pending + record.retrying:,}",
            f"{record.running:,}",
            Text(f"{record.dead:,}", style="red" if record.dead else "dim"),
        )
    if len(order) > rows:
        table.add_row(Text(f"and {len(order) - rows} more", style="dim"))
    return table


def _held_back(record: ProcessorRecord) -> str:
    if record.paused_at:
        return " (paused)"
    return " (breaker open)" if record.breaker and record.breaker.opened_at else ""


def _weight(seen: Seen, record: ProcessorRecord) -> tuple[int, int]:
    unfinished = record.pending + record.retrying + record.running + record.dead
    return seen.succeeded.get(record.name, Histogram()).total, unfinished


def _failures(groups: Sequence[FailureGroup]) -> RenderableType:
    if not groups:
        return Text("No job fails.", style="dim")
    table = _table("fails with", "in", "jobs", "dead", texts=2)
    for group in groups:
        table.add_row(
            Text(group.error_type), Text(group.processor), f"{group.jobs:,}", f"{group.dead:,}"
        )
    return table


def _table(*columns: str, texts: int = 1) -> Table:
    """Return a table whose first columns are texts, which are cut, and the others numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for place, column in enumerate(columns):
        if place < texts:
            table.add_column(column, no_wrap=True, overflow="ellipsis", max_width=30)
        else:
            table.add_column(column, no_wrap=True, justify="right")
    return table


def _rate(count: int, seen: Seen, *, unit: str = "/min") -> str:
    per_min = 60 * count / seen.measured_s if seen.measured_s else 0.0
    return f"{per_min:,.0f}{unit}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:,.0f} ms" if seconds < 1 else f"{seconds:,.1f} s"
