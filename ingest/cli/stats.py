"""`ingest stats`."""

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from ingest import backlog_words
from ingest.cli import output
from ingest.cli.database import database
from ingest.recovery import sentences
from ingest.store.pipeline import jobs, metrics
from ingest.store.pipeline.jobs import ParkedJobs
from ingest.store.reports import behind, possible_losses
from ingest.store.reports import totals as counts
from ingest.store.reports.behind import Backlog
from ingest.store.reports.possible_losses import PossibleLoss


def stats(
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Count deliveries, events and jobs; show what is behind, parked jobs, unreadable values,
    possible losses."""
    now = datetime.now(UTC)
    with database() as engine, engine.connect() as connection:
        totals = dataclasses.asdict(counts.read(connection))
        parked = jobs.parked(connection)
        unreadable = metrics.unreadable(connection, since=now - timedelta(hours=1))
        losses = possible_losses.read(connection, now=now)
        backlog = behind.read(connection)
    if json:
        more = _present(parked=_counted(parked), unreadable=unreadable, possible_losses=losses)
        output.as_json(totals | {"backlog": _known(backlog)} | more)
    elif output.is_terminal():
        output.line(f"{backlog_words.sentence(backlog)}.")
        _print_tables(totals, parked, unreadable, now)
        for sentence in sentences.of_losses(losses, now=now):
            output.line(sentence)
    else:
        _print_lines(totals | {"backlog": _known(backlog)}, parked, unreadable, losses)


def _known(backlog: Backlog) -> dict[str, Any]:
    """Return what there is to tell of the backlog, without the moment of asking."""
    values = dataclasses.asdict(backlog)
    del values["now"]
    return {name: value for name, value in values.items() if value is not None}


def _counted(parked: Sequence[ParkedJobs]) -> list[dict[str, Any]]:
    """Return parked jobs, which were all counted."""
    lanes = map(dataclasses.asdict, parked)
    return [{name: value for name, value in lane.items() if name != "is_least"} for lane in lanes]


def _present(
    **more: Sequence[Mapping[str, Any]] | Sequence[PossibleLoss] | Mapping[str, int],
) -> dict[str, Any]:
    """Return the sections that are not empty: without problems there are the counts alone."""
    return {name: value for name, value in more.items() if value}


def _print_tables(
    totals: Mapping[str, Mapping[str, int]],
    parked: Sequence[ParkedJobs],
    unreadable: Mapping[str, int],
    now: datetime,
) -> None:
    width = max(map(len, totals.values()))
    rows = [
        [group, *(f"{number:,} {name}" for name, number in members.items())]
        for group, members in totals.items()
    ]
    output.table(None, [""] * (width + 1), [row + [""] * (width + 1 - len(row)) for row in rows])
    if parked:
        output.table(
            "parked",
            ["processor", "queue", "jobs", "since", "reason"],
            [
                (
                    row.processor,
                    row.queue,
                    f"{row.jobs:,}",
                    None if row.since is None else output.ago(row.since, now),
                    row.why,
                )
                for row in parked
            ],
        )
    if unreadable:
        output.line(metrics.describe_unreadable(unreadable, "in the last hour"))


def _print_lines(
    totals: Mapping[str, Mapping[str, int]],
    parked: Sequence[ParkedJobs],
    unreadable: Mapping[str, int],
    losses: Sequence[PossibleLoss],
) -> None:
    """Print one line for each count: group, name, number. Lines of parked jobs have more fields."""
    lines: list[Sequence[object]] = [
        (group, name, number)
        for group, members in totals.items()
        for name, number in members.items()
    ]
    lines += [
        ("parked", row.processor, row.jobs, row.queue, row.reason, row.since) for row in parked
    ]
    lines += [("unreadable", label, count) for label, count in unreadable.items()]
    lines += [("possible_loss", loss.source, loss.deliveries, loss.since) for loss in losses]
    output.table(None, [], lines)
