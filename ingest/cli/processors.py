"""`ingest processors`: what workers have registered; pause, resume and run them."""

from collections.abc import Iterator
from typing import Annotated

import typer

from ingest.cli import output
from ingest.cli.author import author
from ingest.cli.database import CommandError, database
from ingest.errors import IngestError, NotFound
from ingest.store.pipeline import processors
from ingest.store.pipeline.processors import ProcessorRecord
from ingest.store.pipeline.schedules import ScheduleRecord

app = typer.Typer(
    help="List the processors; pause, resume and run them.", invoke_without_command=True
)

_Name = Annotated[str, typer.Argument(metavar="PROCESSOR", help="Its name, as the list shows it.")]
_Reason = Annotated[str | None, typer.Option(help="Why; kept in the audit log.")]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


@app.callback()
def registered(
    context: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the processors that workers have registered, with their unfinished and dead jobs."""
    if context.invoked_subcommand is None:
        list_processors(json=json)


@app.command("list")
def list_processors(
    *, json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False
) -> None:
    """List the processors that workers have registered, with their unfinished and dead jobs."""
    records = _all()
    if json:
        for record in records:
            output.as_json(record)
        return
    columns = ["processor", "queue", "waiting", "retrying", "running", "dead", "state", "order"]
    output.table(None, columns, map(_row, records), whole=columns[1:-2])
    if not records and output.is_terminal():
        output.line("No worker has registered a processor.")


@app.command("show")
def show(name: _Name, json: _Json = False) -> None:
    """Show a processor: its rules, its jobs and, if it is periodic, its schedule."""
    record = _named(name)
    if json:
        output.as_json(record)
        return
    for label, value in _told(record):
        output.line(f"{label:<10} {value}")


@app.command("run")
def run(name: _Name, reason: _Reason = None, json: _Json = False) -> None:
    """Run a periodic processor once now, whatever its schedule says."""
    from ingest.cli.commands import commands

    try:
        with commands() as changes:
            made = changes.run_processor(author(), name, reason)
    except IngestError as error:
        raise CommandError(str(error), reason=error.reason) from None
    if json:
        output.as_json(made)
    else:
        output.line(f"{name} runs now: ingest events show {made.event}")


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
        raise _unknown(error) from None


def _tell(name: str, json: bool, what: str) -> None:
    if not json:
        output.line(f"{name} {what}")
        return
    output.as_json(_named(name))


def _named(name: str) -> ProcessorRecord:
    for record in _all():
        if record.name == name:
            return record
    raise _unknown(NotFound(f"No worker has registered a processor {name}.", reason="not_found"))


def _unknown(error: NotFound) -> CommandError:
    names = [record.name for record in _all()]
    known = f" There is {', '.join(names)}." if names else ""
    return CommandError(f"{error}{known}", reason=error.reason)


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


def _told(record: ProcessorRecord) -> Iterator[tuple[str, str]]:
    """Yield what is known of a processor, a line each."""
    yield "processor", record.name
    yield "state", _state(record)
    yield "types", ", ".join(record.types)
    yield "queue", record.queue
    yield "attempts", f"{record.max_attempts} of up to {record.timeout_s:g} s"
    waiting = f"{record.pending:,} pending, {record.retrying:,} retrying"
    yield "jobs", f"{waiting}, {record.running:,} running, {record.dead:,} dead"
    if (schedule := record.schedule) is not None:
        overlap = "runs may overlap" if schedule.overlap else "runs do not overlap"
        yield "schedule", f"{schedule.expression} ({schedule.zone})"
        yield "rules", f"missed: {schedule.missed}; {overlap}"
        yield "next due", output.cell(schedule.next_due_at)
        yield "last due", output.cell(schedule.last_due_at)
        yield "last run", _last_run(schedule)


def _last_run(schedule: ScheduleRecord) -> str:
    if schedule.last_event is None:
        return "none"
    return f"{schedule.last_state or 'no longer stored'}, event {schedule.last_event}"
