"""`ingest processors`: what workers have registered; pause and resume them."""

from typing import Annotated

import typer

from ingest.cli import output
from ingest.cli.author import author
from ingest.cli.database import CommandError, database
from ingest.errors import NotFound
from ingest.store.pipeline import processors
from ingest.store.pipeline.processors import ProcessorRecord

app = typer.Typer(help="List the processors; pause and resume them.", invoke_without_command=True)

_Name = Annotated[str, typer.Argument(metavar="PROCESSOR", help="Its name, as the list shows it.")]
_Reason = Annotated[str | None, typer.Option(help="Why; kept in the audit log.")]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


@app.callback()
def registered(
    context: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the processors that workers have registered, with their unfinished and dead jobs."""
    if context.invoked_subcommand is not None:
        return
    records = _all()
    if json:
        for record in records:
            output.as_json(record)
        return
    columns = ["processor", "queue", "waiting", "retrying", "running", "dead", "state", "order"]
    output.table(None, columns, map(_row, records), whole=columns[1:-2])
    if not records and output.is_terminal():
        output.line("No worker has registered a processor.")


@app.command("pause")
def pause(name: _Name, reason: _Reason = None, json: _Json = False) -> None:
    """Pause a processor: its jobs wait without failing."""
    _change(name, "pause", reason)
    _tell(name, json, "is paused: its jobs wait.")


@app.command("resume")
def resume(name: _Name, reason: _Reason = None, json: _Json = False) -> None:
    """Resume a processor: all jobs that waited for it run."""
    _change(name, "resume", reason)
    _tell(name, json, "is not paused: its jobs run.")


def _change(name: str, verb: str, reason: str | None) -> None:
    from ingest.cli.commands import commands

    try:
        with commands() as changes:
            change = changes.pause if verb == "pause" else changes.resume
            change(author(), name, reason)
    except NotFound as error:
        names = [record.name for record in _all()]
        known = f" There is {', '.join(names)}." if names else ""
        raise CommandError(f"{error}{known}", reason=error.reason) from None


def _tell(name: str, json: bool, what: str) -> None:
    if not json:
        output.line(f"{name} {what}")
        return
    for record in _all():
        if record.name == name:
            output.as_json(record)


def _all() -> list[ProcessorRecord]:
    with database() as engine, engine.connect() as connection:
        return processors.all_of_them(connection)


def _row(record: ProcessorRecord) -> tuple[object, ...]:
    counts = (record.pending, record.retrying, record.running, record.dead)
    return (record.name, record.queue, *counts, _state(record), _order(record))


def _order(record: ProcessorRecord) -> str:
    """Return what the jobs are kept in order by, and what waits for that."""
    if record.ordered_by is None:
        return ""
    waits = f": {record.behind} behind others" if record.behind else ""
    keys = "1 key" if record.blocked_keys == 1 else f"{record.blocked_keys} keys"
    dead = f", {keys} behind a dead letter" if record.blocked_keys else ""
    return f"by {record.ordered_by}{waits}{dead}"


def _state(record: ProcessorRecord) -> str:
    if record.paused_at is None:
        return "runs"
    why = f": {record.pause_reason}" if record.pause_reason else ""
    return f"paused by {record.paused_by}{why}"
