"""`ingest bulk-actions`: replays and discards, whoever began them, by their numbers."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from sqlalchemy import Engine

from ingest.cli import output
from ingest.cli.author import author
from ingest.cli.database import CommandError, database
from ingest.query import spell
from ingest.store.bulk import replay as bulk_actions
from ingest.store.bulk.changes import CANCELLED, PAUSED, RUNNING
from ingest.store.bulk.replay import Operation, Work

_POLL_S = 0.5
_NO_LIMIT_S = float("inf")

app = typer.Typer(
    help="List replays and discards; show, pause, resume or cancel one.", no_args_is_help=True
)
_Number = Annotated[int, typer.Argument(help="Its number.", min=1)]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]
_Reason = Annotated[str | None, typer.Option(help="Why; kept in the audit log.")]


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many, at most.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List replays and discards, newest first, with what has become of their jobs."""
    with database() as engine, engine.connect() as connection:
        operations = bulk_actions.operations(connection, limit=limit)
    if json:
        for operation in operations:
            output.as_json(operation)
        return
    now = datetime.now(UTC)
    output.table(
        None,
        ["", "action", "status", "done", "failed", "by", "when", "selected"],
        [
            (
                operation.id,
                operation.action,
                operation.status,
                _done(operation.work),
                operation.work.dead,
                operation.requested_by,
                output.ago(operation.requested_at, now)
                if output.is_terminal()
                else operation.requested_at,
                _selected(operation),
            )
            for operation in operations
        ],
        whole=("", "status", "done"),
    )


def _done(work: Work) -> str:
    return f"{work.done:,}{'+' if work.is_capped else ''} of {work.total:,}"


def _selected(operation: Operation) -> str:
    if operation.selection.ids:
        return output.number_of(len(operation.selection.ids), "event")
    return spell(operation.selection) or "everything"


@app.command("show")
def show(
    number: _Number,
    wait: Annotated[
        bool, typer.Option("--wait", help="Until nothing of it waits or runs any more.")
    ] = False,
    json: _Json = False,
) -> None:
    """Show what has become of the jobs of a replay or discard."""
    with database() as engine:
        operation = wait_for(engine, number) if wait else _read(engine, number)
    report(operation, json=json)


@app.command("pause")
def pause(number: _Number, reason: _Reason = None, json: _Json = False) -> None:
    """Pause a replay or discard: jobs that have not begun become what they were before."""
    _change(number, PAUSED, reason, json)


@app.command("cancel")
def cancel(number: _Number, reason: _Reason = None, json: _Json = False) -> None:
    """Cancel a replay or discard: jobs that have not begun become what they were before."""
    _change(number, CANCELLED, reason, json)


@app.command("resume")
def resume(number: _Number, reason: _Reason = None, json: _Json = False) -> None:
    """Resume one that was paused or has failed, where it stopped; no job that has run runs again.

    The console goes on with what it began. What a command began is requeued by this one.
    """
    with database() as engine:
        _make(engine, number, RUNNING, reason)
        if not _read(engine, number).background:
            drive(engine, number)
        operation = _read(engine, number)
    report(operation, json=json)


def _change(number: int, status: str, reason: str | None, json: bool) -> None:
    with database() as engine:
        _make(engine, number, status, reason)
        operation = _read(engine, number)
    report(operation, json=json)


def _make(engine: Engine, number: int, status: str, reason: str | None) -> None:
    """Change the status, and take everything back that has not begun."""
    by = author()
    if not bulk_actions.change(engine, number, status, by=by, reason=reason, within_s=_NO_LIMIT_S):
        raise CommandError(f"Bulk action {number} has already ended.", reason="has_ended")


def _read(engine: Engine, number: int) -> Operation:
    with engine.connect() as connection:
        return bulk_actions.operation(connection, number)


def drive(engine: Engine, number: int) -> None:
    """Requeue what is selected, with a progress bar in a terminal. Ctrl-C cancels it."""
    columns = (TextColumn("requeuing"), BarColumn(), MofNCompleteColumn())
    total = _read(engine, number).total
    with Progress(*columns, console=output.console(), disable=not output.is_terminal()) as bar:
        task = bar.add_task("", total=total)
        for counts in bulk_actions.drive(engine, number):
            bar.update(task, completed=counts.total)


def wait_for(
    engine: Engine, number: int, *, pause: Callable[[float], None] = time.sleep
) -> Operation:
    """Return a bulk action once nothing of it waits or runs, or it is paused or has failed."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=output.console(), disable=not output.is_terminal()) as bar:
        task = bar.add_task("", total=None)
        while True:
            operation = _read(engine, number)
            bar.update(
                task,
                completed=operation.work.done,
                total=operation.work.total,
                description=_in_short(operation.work),
            )
            if operation.status in ("paused", "failed") or not operation.is_moving:
                return operation
            pause(_POLL_S)


def _in_short(work: Work) -> str:
    return f"{work.waiting:,} wait, {work.succeeded:,} succeeded, {work.dead:,} failed again"


def report(operation: Operation, *, json: bool = False) -> None:
    """Say what has become of the jobs of a bulk action."""
    if json:
        output.as_json(operation)
        return
    name = operation.action.capitalize()
    output.line(f"{name} {operation.id} is {operation.status}.")
    output.table(None, ["", ""], list(_lines(operation.work)))


def _lines(work: Work) -> list[tuple[str, int]]:
    """Return each number that is not zero, with its words."""
    words = {
        "to begin": work.to_begin,
        "waiting": work.waiting,
        "running": work.running,
        "succeeded": work.succeeded,
        "failed again, to be retried": work.retrying,
        "failed again, dead": work.dead,
        "discarded": work.discarded,
        "taken back": work.taken_back,
        "replayed or discarded by a later one, or removed": work.moved_on,
        "events without a job": work.without_job,
        "more, not counted": work.uncounted,
    }
    return [(label, number) for label, number in words.items() if number]
