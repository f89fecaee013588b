"""`ingest processors`: what workers have registered; pause, resume, limit and run them, and
override their breakers."""

import os
from datetime import UTC, datetime
from typing import Annotated

import typer

from ingest import settings
from ingest.cli import output, processor_text
from ingest.cli.author import author
from ingest.cli.database import CommandError, database
from ingest.cli.suggestions import check_processor
from ingest.console.services.limits import ProcessorLimits
from ingest.console.services.ranges import Range
from ingest.errors import IngestError, NotFound
from ingest.store.pipeline import processors
from ingest.store.pipeline.processors import ProcessorRecord

app = typer.Typer(
    help="List the processors; pause, resume, limit and run them; override their breakers.",
    invoke_without_command=True,
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
def show(
    name: _Name,
    period: Annotated[
        Range, typer.Option("--range", help="What rates, times and failures are of.")
    ] = Range.HOUR,
    json: _Json = False,
) -> None:
    """Show all about a processor: what it is, what it did, what is left, and what fails."""
    from ingest.console.services import processor_detail, ranges
    from ingest.destinations import overview

    now, hosts = datetime.now(UTC), overview.hosts(settings.load(), os.environ)
    with database() as engine, engine.connect() as connection:
        check_processor(connection, name)
        window = ranges.window(period, now)
        details = processor_detail.read(
            connection, name, window, destinations=hosts, now=now, masked=False
        )
    if json:
        output.as_json(details)
    else:
        processor_text.write(details, period, now=now)


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


@app.command("limit")
def limit(
    name: _Name,
    concurrency: Annotated[int | None, typer.Option(help="How many jobs run at once.")] = None,
    rate: Annotated[
        str | None, typer.Option(help="How many start in any window: 50/s, 1000/m, 10/5s.")
    ] = None,
    key_concurrency: Annotated[
        int | None, typer.Option(help="How many jobs of one key run at once.")
    ] = None,
    key_rate: Annotated[
        str | None, typer.Option(help="How many jobs of one key start in any window.")
    ] = None,
    as_declared: Annotated[
        bool, typer.Option("--as-declared", help="Go back to what the workers declare.")
    ] = False,
    reason: _Reason = None,
    json: _Json = False,
) -> None:
    """Set limits of a processor that declares some, for the next jobs on; others stay as they are.

    Without options, show them.
    """
    from ingest.cli.commands import commands

    values = {
        "concurrency": concurrency,
        "rate": rate,
        "key_concurrency": key_concurrency,
        "key_rate": key_rate,
    }
    is_given = any(value is not None for value in values.values())
    if as_declared and is_given:
        raise CommandError("--as-declared goes with no other limit.", reason="bad_limit")
    try:
        if as_declared or is_given:
            with commands() as changes:
                changes.set_limits(author(), name, values, reason, keeps_others=not as_declared)
        seen = _limits(name)
    except NotFound as error:
        raise _unknown(error) from None
    except IngestError as error:
        raise CommandError(str(error), reason=error.reason) from None
    if json:
        output.as_json(seen)
    else:
        for fact, value in processor_text.limits(seen):
            output.line(f"{fact}: {value}")


def _limits(name: str) -> ProcessorLimits:
    from ingest.console.services import limits

    with database() as engine, engine.connect() as connection:
        processors.one(connection, name)
        seen = limits.read(connection, name)
    if seen is None:
        raise CommandError(
            f"{name} declares no limit. Declare one, for example concurrency=1000: from then on it"
            " can be changed here.",
            reason="no_limits",
        )
    return seen


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


@app.command("close")
def close(name: _Name, reason: _Reason = None, json: _Json = False) -> None:
    """Close the open breaker of a processor: all its jobs run, whatever its target says."""
    _change(name, "close", reason)
    _tell(name, json, "is held back no longer: its breaker is closed, and its jobs run.")


@app.command("probe")
def probe(name: _Name, reason: _Reason = None, json: _Json = False) -> None:
    """Probe the target of a processor whose breaker is open now, with one of its jobs."""
    _change(name, "probe", reason)
    _tell(name, json, "is probed now: if that job succeeds, the others run.")


def _change(name: str, verb: str, reason: str | None) -> None:
    from ingest.cli.commands import commands

    try:
        with commands() as changes:
            change = {
                "pause": changes.pause,
                "resume": changes.resume,
                "close": changes.close_breaker,
                "probe": changes.probe,
            }[verb]
            change(author(), name, reason)
    except NotFound as error:
        raise _unknown(error) from None
    except IngestError as error:
        raise CommandError(str(error), reason=error.reason) from None


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
    least = dict.fromkeys(record.at_least, "at least ")
    behind = f"{least.get('behind', '')}{record.behind}"
    keys = least.get("blocked_keys", "") + output.number_of(record.blocked_keys, "key")
    waits = f": {behind} behind others" if record.behind else ""
    dead = f", {keys} behind a dead letter" if record.blocked_keys else ""
    return f"by {record.ordered_by}{waits}{dead}"


def _state(record: ProcessorRecord) -> str:
    if record.paused_at is not None:
        why = f": {record.pause_reason}" if record.pause_reason else ""
        return f"paused by {record.paused_by}{why}"
    if record.breaker is not None and record.breaker.opened_at is not None:
        return f"breaker open since {output.cell(record.breaker.opened_at)}"
    return "runs"
