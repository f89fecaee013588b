"""`ingest stats`."""

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from ingest.cli import output
from ingest.cli.database import database
from ingest.store.pipeline import jobs, metrics
from ingest.store.pipeline.jobs import ParkedJobs
from ingest.store.reports import totals as counts


def stats(
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Count deliveries, events and jobs; tell what is parked and what could not be read."""
    now = datetime.now(UTC)
    with database() as engine, engine.connect() as connection:
        found = dataclasses.asdict(counts.read(connection))
        parked = jobs.parked(connection)
        unreadable = metrics.unreadable(connection, since=now - timedelta(hours=1))
    if json:
        output.as_json(found | _told(parked=parked, unreadable=unreadable))
    elif output.is_terminal():
        _for_a_person(found, parked, unreadable, now)
    else:
        _for_a_pipe(found, parked, unreadable)


def _told(**more: Sequence[ParkedJobs] | Mapping[str, int]) -> dict[str, Any]:
    """Return what there is to tell: who reads the counts finds them as ever where all is well."""
    return {name: value for name, value in more.items() if value}


def _for_a_person(
    found: Mapping[str, Mapping[str, int]],
    parked: Sequence[ParkedJobs],
    unreadable: Mapping[str, int],
    now: datetime,
) -> None:
    width = max(map(len, found.values()))
    rows = [
        [group, *(f"{number:,} {name}" for name, number in members.items())]
        for group, members in found.items()
    ]
    output.table(None, [""] * (width + 1), [row + [""] * (width + 1 - len(row)) for row in rows])
    if parked:
        output.table(
            "parked",
            ["processor", "queue", "jobs", "since", "why"],
            [
                (
                    lane.processor,
                    lane.queue,
                    f"{lane.jobs:,}",
                    None if lane.since is None else output.ago(lane.since, now),
                    lane.why,
                )
                for lane in parked
            ],
        )
    if unreadable:
        output.line(metrics.describe_unreadable(unreadable, "in the last hour"))


def _for_a_pipe(
    found: Mapping[str, Mapping[str, int]],
    parked: Sequence[ParkedJobs],
    unreadable: Mapping[str, int],
) -> None:
    """Write a line a count: what it is of, its name and the number; of what is parked, more."""
    lines: list[Sequence[object]] = [
        (group, name, number)
        for group, members in found.items()
        for name, number in members.items()
    ]
    lines += [
        ("parked", lane.processor, lane.jobs, lane.queue, lane.reason, lane.since)
        for lane in parked
    ]
    lines += [("unreadable", label, count) for label, count in unreadable.items()]
    output.table(None, [], lines)
