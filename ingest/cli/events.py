"""`ingest events list` and `ingest events show`."""

import dataclasses
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from ingest.cli import output
from ingest.cli.database import CommandError, database, parse_time
from ingest.query import parse
from ingest.store.reports import event_detail
from ingest.store.reports.event_detail import AttemptRecord, EventHistory, JobRecord
from ingest.store.search import events
from ingest.store.search.filters import EVENT_STATES, EventFilter, resolve

_DROPPED = b"(dropped when its day's retention ended)"

_LONGEST_SHOWN = 60
# What a line of `list --json` has: programs read it.
_PRINTED = ("id", "source", "event_id", "type", "state", "received_at", "deliveries")

app = typer.Typer(help="Look at events.", no_args_is_help=True)


@app.command("list")
def list_(
    type_: Annotated[
        list[str] | None, typer.Option("--type", help="Event type; * stands for anything.")
    ] = None,
    state: Annotated[str | None, typer.Option(help=f"One of {', '.join(EVENT_STATES)}.")] = None,
    processor: Annotated[str | None, typer.Option(help="With a job of this processor.")] = None,
    since: Annotated[str | None, typer.Option(help="2026-01-31T12:00:00Z, or 15m, 2h, 7d.")] = None,
    until: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    search: Annotated[str | None, typer.Option(help="Text in the event id or the body.")] = None,
    query: Annotated[
        str | None,
        typer.Option(help="As in the console: 'state:dead order:55 data.total:1250 \"a text\"'."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, at most.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List events, newest first."""
    if state is not None and state not in EVENT_STATES:
        raise CommandError(f"{state!r} is no state: {', '.join(EVENT_STATES)}.", reason="bad_state")
    asked = _asked(query or "")
    selection = dataclasses.replace(
        asked,
        types=(*asked.types, *(type_ or ())),
        processor=processor or asked.processor,
        state=state or asked.state,
        since=parse_time(since) or asked.since,
        until=parse_time(until) or asked.until,
        search=(*asked.texts, *filter(None, [search])),
    )
    with database() as engine, engine.connect() as connection:
        found = list(events.events(connection, selection, limit=limit))
    if json:
        for event in found:
            output.as_json({name: getattr(event, name) for name in _PRINTED})
        return
    now = datetime.now(UTC)
    output.table(
        None,
        ["id", "event id", "state", "received", "deliveries"],
        [
            (
                each.id,
                _short(each.event_id) if output.is_terminal() else each.event_id,
                each.state,
                output.ago(each.received_at, now) if output.is_terminal() else each.received_at,
                each.deliveries,
            )
            for each in found
        ],
        whole=("id", "state", "received", "deliveries"),
    )
    if not found and output.is_terminal():
        output.line("No event matches. `ingest send --documented` posts some.")


def _asked(query: str) -> EventFilter:
    """What `--query` says; where other options say something else, they count."""
    found = parse(query, now=datetime.now(UTC))
    if found.problems:
        complaints = " ".join(each.message for each in found.problems)
        raise CommandError(f"--query: {complaints}", reason="bad_query")
    return found.selection


def _short(event_id: str) -> str:
    """An event id of bearable length; the id beside it is the one to copy."""
    return event_id if len(event_id) <= _LONGEST_SHOWN else f"{event_id[: _LONGEST_SHOWN - 1]}…"


@app.command("show")
def show(
    event: Annotated[str, typer.Argument(help="Its id, or its id at the sender.")],
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show an event with its body, its deliveries, its jobs and their attempts."""
    with database() as engine, engine.connect() as connection:
        found = [event_detail.of_event(connection, each) for each in resolve(connection, [event])]
    for each in found:
        if json:
            output.as_json(_document(each))
        else:
            _print(each)


def _document(event: EventHistory) -> dict[str, Any]:
    first = event.deliveries[0]
    return {
        "id": event.id,
        "source": event.source,
        "event_id": event.event_id,
        "type": event.type,
        "state": event.state,
        "received_at": event.received_at,
        "deliveries": len(event.deliveries),
        "duplicates": len(event.deliveries) - 1,
        "conflicts": sum(each.conflict for each in event.deliveries),
        "body": first.body,
        "headers": None if first.headers is None else dict(first.headers),
        "key_id": first.key_id,
        "repeats": event.deliveries[1:],
        "jobs": [dataclasses.asdict(job) for job in event.jobs],
    }


def _print(event: EventHistory) -> None:
    first, *repeats = event.deliveries
    conflicts = [each for each in repeats if each.conflict]
    output.table(
        None,
        ["", ""],
        [
            ("event", event.id),
            ("event id", event.event_id),
            ("type", event.type),
            ("state", event.state),
            ("received", f"{event.received_at.isoformat(timespec='seconds')} from {event.source}"),
            ("signed with key", first.key_id),
            ("duplicates", f"{len(repeats)}, {len(conflicts)} of them with another body"),
        ],
    )
    output.body("body", first.body if first.body is not None else _DROPPED)
    for each in conflicts:
        title = f"another body under the same id, delivery {each.id}"
        output.body(title, each.body if each.body is not None else _DROPPED, style="yellow")
    for job in event.jobs:
        _print_job(job)
    if not event.jobs:
        output.line("No processor handles this type. Register one, then `ingest replay` it.")


def _print_job(job: JobRecord) -> None:
    title = f"{job.processor}: {job.state}"
    if job.next_attempt_at is not None:
        title += f", next attempt {job.next_attempt_at.isoformat(timespec='seconds')}"
    if job.attempts:
        rows = [_attempt_row(attempt) for attempt in job.attempts]
        output.line("")
        output.table(title, ["attempt", "trigger", "began", "took", "outcome", "error"], rows)
    else:
        output.line(title)


def _attempt_row(attempt: AttemptRecord) -> tuple[object, ...]:
    took = None
    if attempt.finished_at is not None:
        took = f"{(attempt.finished_at - attempt.started_at).total_seconds() * 1000:.0f} ms"
    error = ": ".join(filter(None, (attempt.error_type, attempt.error_message)))
    trigger = attempt.trigger
    if attempt.replayed_by:
        trigger += f" by {attempt.replayed_by}"
    began = attempt.started_at
    return (attempt.number, trigger, began, took, attempt.outcome or "running", error or None)
