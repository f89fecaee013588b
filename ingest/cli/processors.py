"""`ingest processors`: what workers have registered; pause and resume them."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from ingest.cli import output, processor_text
from ingest.cli.author import author
from ingest.cli.database import CommandError, database
from ingest.cli.suggestions import check_processor
from ingest.console.services.ranges import Range
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
    columns = ["processor", "queue", "waiting", "retrying", "running", "dead", "state"]
    output.table(None, columns, map(_row, records), whole=columns[1:-1])
    if not records and output.is_terminal():
        output.line("No worker has registered a processor.")


@app.command("show")
def show(
    name: _Name,
    period: Annotated[
        Range, typer.Option("--range", help="What rates, times and failures are of.")
    ] = Range.HOUR,
    json: _Json = False,
) -> None:
    """Show all about a processor: what it is, what it did, what is left, and what fails."""
    from ingest.console.services import processor_detail, ranges

    now = datetime.now(UTC)
    with database() as engine, engine.connect() as connection:
        check_processor(connection, name)
        window = ranges.window(period, now)
        details = processor_detail.read(connection, name, window, now=now, masked=False)
    if json:
        output.as_json(details)
    else:
        processor_text.write(details, period, now=now)


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
    return (record.name, record.queue, *counts, _state(record))


def _state(record: ProcessorRecord) -> str:
    if record.paused_at is None:
        return "runs"
    why = f": {record.pause_reason}" if record.pause_reason else ""
    return f"paused by {record.paused_by}{why}"
