"""`ingest audit-log`: who did what, when and why, and which way they came in."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from ingest.cli import output
from ingest.cli.database import database
from ingest.store.reports import audit_log as reports
from ingest.store.reports.audit_log import Action


def audit_log(
    limit: Annotated[int, typer.Option(min=1, help="How many, at most.")] = 20,
    before: Annotated[
        int | None, typer.Option(metavar="ID", help="Only those before the entry of this id.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List what operators did, the newest first."""
    with database() as engine, engine.connect() as connection:
        entries = reports.newest(connection, limit=limit, before=before)
    if json:
        for entry in entries:
            output.as_json(entry)
        return
    now = datetime.now(UTC)
    columns = ["id", "when", "who", "by", "action", "target", "reason"]
    output.table(None, columns, [_row(entry, now) for entry in entries], whole=("id", "when"))
    if not entries and output.is_terminal():
        output.line("The audit log is empty.")


def _row(entry: Action, now: datetime) -> tuple[object, ...]:
    return (
        entry.id,
        output.ago(entry.at, now) if output.is_terminal() else entry.at,
        entry.by,
        entry.via,
        entry.action,
        entry.target,
        entry.reason,
    )
