"""`ingest failures`: what fails, grouped by error and place, and what was rejected."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from ingest.cli import output
from ingest.cli.database import database
from ingest.store.reports import failures as reports
from ingest.store.reports.failures import FailureGroup, Failures, Rejected


def failures(
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show dead and retrying jobs by error and place, and rejected deliveries by reason."""
    now = datetime.now(UTC)
    with database() as engine, engine.connect() as connection:
        failing = reports.groups(connection, now=now)
        rejected = reports.rejected(connection)
    if json:
        output.as_json(
            {
                "groups": failing.groups,
                "examined": failing.examined,
                "is_whole": failing.is_whole,
                "rejected": rejected,
            }
        )
        return
    _print_failing(failing, now)
    _print_rejected(rejected, now)
    if not failing.groups and not rejected and output.is_terminal():
        output.line("Nothing fails, and nothing was rejected.")


def _print_failing(failing: Failures, now: datetime) -> None:
    if not failing.groups:
        return
    columns = ["jobs", "dead", "processor", "error", "raised at", "last", "example"]
    rows = [_row(group, now) for group in failing.groups]
    output.table("Dead and retrying jobs", columns, rows, whole=("jobs", "dead", "last"))
    if not failing.is_whole:
        output.line(f"Only the newest {reports.EXAMINED:,} of them were looked at.")


def _row(group: FailureGroup, now: datetime) -> tuple[object, ...]:
    error = ": ".join(filter(None, (group.error_type, group.message)))
    return (
        group.jobs,
        group.dead,
        group.processor,
        error,
        group.raised_at,
        output.ago(group.last_seen, now) if output.is_terminal() else group.last_seen,
        group.example,
    )


def _print_rejected(rejected: list[Rejected], now: datetime) -> None:
    if not rejected:
        return
    output.table(
        "Rejected deliveries",
        ["deliveries", "reason", "last", "example"],
        [
            (
                one.deliveries,
                one.reason,
                output.ago(one.last_seen, now) if output.is_terminal() else one.last_seen,
                one.example,
            )
            for one in rejected
        ],
        whole=("deliveries", "last"),
    )
