"""`ingest events list` and `ingest events show`."""

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import typer

from ingest import settings
from ingest.cli import output
from ingest.cli.database import CommandError, database, parse_time
from ingest.entities import listed as entities
from ingest.entities.entity import Entity
from ingest.query import parse
from ingest.sources.registry import configured
from ingest.sources.titles import Title
from ingest.store import views
from ingest.store.reports import event_detail
from ingest.store.reports.event_detail import AttemptRecord, DeliveryRecord, EventHistory, JobRecord
from ingest.store.search import events
from ingest.store.search.events import ListedEvent
from ingest.store.search.filters import EVENT_STATES, EventFilter, looked_back_to
from ingest.store.search.named import resolve
from ingest.store.search.related import leaves_unfinished
from ingest.store.search.titles import of_history, titled
from ingest.store.views import View

_OUTCOME_COLOURS = {"succeeded": "green", "running": "blue"} | dict.fromkeys(
    ("failed", "timed_out", "lost"), "red"
)
_DROPPED = b"(erased, or deleted at the end of its retention)"

_STATE_WIDTH, _AGO_WIDTH = 11, 12
# The fields of a line of `list --json`: programs rely on them.
_PRINTED = ("id", "source", "event_id", "type", "state", "received_at", "deliveries")

app = typer.Typer(help="List and show events.", no_args_is_help=True)


@app.command("list")
def list_(
    type_: Annotated[
        list[str] | None, typer.Option("--type", help="Event type; * matches any text.")
    ] = None,
    state: Annotated[str | None, typer.Option(help=f"One of {', '.join(EVENT_STATES)}.")] = None,
    processor: Annotated[
        str | None, typer.Option(help="Only events with a job of this processor.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Received at or after: 2026-01-31T12:00:00Z, or 15m, 2h, 7d ago."),
    ] = None,
    until: Annotated[str | None, typer.Option(help="Received before: the same forms.")] = None,
    search: Annotated[str | None, typer.Option(help="Text in the event id or the body.")] = None,
    query: Annotated[
        str | None,
        typer.Option(
            help="A query as in the console: 'state:dead order:55 data.total:1250 \"a text\"'."
        ),
    ] = None,
    view: Annotated[str | None, typer.Option(help="The search of a saved view.")] = None,
    oldest_first: Annotated[bool, typer.Option(help="The oldest events first.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many, at most.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List events, newest first unless another order is asked for."""
    if state is not None and state not in EVENT_STATES:
        raise CommandError(
            f"{state!r} is not a state: use {', '.join(EVENT_STATES)}.", reason="bad_state"
        )
    if view is not None and query is not None:
        raise CommandError("Give --query or --view, not both.", reason="bad_query")
    saved = None if view is None else _saved(view)
    text, where = (query or "", "--query") if saved is None else (saved.query, f"view {saved.name}")
    base = _parse_query(text, where)
    oldest_first = oldest_first or (saved is not None and saved.oldest_first)
    selection = dataclasses.replace(
        base,
        types=(*base.types, *(type_ or ())),
        processor=processor or base.processor,
        state=state or base.state,
        since=parse_time(since) or base.since,
        until=parse_time(until) or base.until,
        search=(*base.texts, *filter(None, [search])),
    )
    sources = configured(settings.load().sources)
    with database() as engine, engine.connect() as connection:
        listed = list(events.events(connection, selection, limit=limit, oldest_first=oldest_first))
        about: Mapping[UUID, Entity] = {}
        if json or output.is_terminal():
            listed = list(titled(connection, listed, sources))
            about = entities.about(connection, sources, listed)
        looked_back = looked_back_to(connection, selection)
        left = bool(selection.about) and leaves_unfinished(connection)
    if json:
        for event in listed:
            known = {name: getattr(event, name) for name in _PRINTED}
            output.as_json(known | {"title": str(event.title), "about": about.get(event.id)})
        return
    if output.is_terminal():
        _print_list(listed, about, datetime.now(UTC))
    else:
        for event in listed:
            cells = (event.id, event.event_id, event.state, event.received_at, event.deliveries)
            output.row(cells)
    if looked_back is not None and output.is_terminal():
        output.line(
            "Events of senders without a read model were looked for back to"
            f" {looked_back.isoformat(timespec='seconds')} only: look before then with --until."
        )
    if left and output.is_terminal():
        output.line(output.LEFT_OUT)
    if not listed and output.is_terminal():
        output.line("No event matches. `ingest send --documented` posts example events.")


def _saved(name: str) -> View:
    with database() as engine, engine.connect() as connection:
        return views.named(connection, name)


def _parse_query(text: str, where: str) -> EventFilter:
    """Return the filter of `--query`, or of a view. Other options override it."""
    query = parse(text, now=datetime.now(UTC))
    if query.problems:
        messages = " ".join(problem.message for problem in query.problems)
        raise CommandError(f"{where}: {messages}", reason="bad_query")
    return query.selection


def _print_list(listed: Sequence[ListedEvent], about: Mapping[UUID, Entity], now: datetime) -> None:
    """Print events as wide as the terminal, each with its title, and with what can be copied: the
    whole id, and what `ingest show` tells all of."""
    for event in listed:
        times = f" ({event.deliveries} times)" if event.deliveries > 1 else ""
        state = (f"{event.state:<{_STATE_WIDTH}}", output.STATE_COLOURS.get(event.state, ""))
        when = (f"{output.ago(event.received_at, now):<{_AGO_WIDTH}}", "dim")
        output.cut(state, when, (f"{event.title}{times}", ""))
        entity = about.get(event.id)
        names = "" if entity is None else f"{entity.kind} {entity.value}  "
        output.cut((f"  {event.id}  ", ""), (names, ""), (event.event_id, "dim"))


@app.command("show")
def show(
    event: Annotated[str, typer.Argument(help="The event's id, or its id at the sender.")],
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show an event with its body, its deliveries, its jobs and their attempts."""
    with database() as engine, engine.connect() as connection:
        histories = [
            event_detail.of_event(connection, event_id) for event_id in resolve(connection, [event])
        ]
    sources = configured(settings.load().sources)
    for history in histories:
        title = of_history(sources, history)
        if json:
            output.as_json(_document(history, title))
        else:
            _print(history, title)


def _document(event: EventHistory, title: Title) -> dict[str, Any]:
    first = event.deliveries[0]
    return {
        "id": event.id,
        "source": event.source,
        "event_id": event.event_id,
        "type": event.type,
        "title": str(title),
        "state": event.state,
        "received_at": event.received_at,
        "deliveries": len(event.deliveries),
        "duplicates": len(event.deliveries) - 1,
        "conflicts": sum(delivery.conflict for delivery in event.deliveries),
        "body": first.body,
        "unreadable": first.unreadable,
        "headers": None if first.headers is None else dict(first.headers),
        "key_id": first.key_id,
        "part_of": first.part_of,
        "position": first.position,
        "repeats": event.deliveries[1:],
        "jobs": [dataclasses.asdict(job) for job in event.jobs],
    }


def _print(event: EventHistory, title: Title) -> None:
    first, *repeats = event.deliveries
    conflicts = [delivery for delivery in repeats if delivery.conflict]
    if output.is_terminal():
        output.wrapped(str(title), style="bold")
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
            *_place(first),
            ("duplicates", f"{len(repeats)}, {len(conflicts)} of them with a different body"),
        ],
    )
    output.body("body", _shown(first))
    for delivery in conflicts:
        what = f"different body under the same id, delivery {delivery.id}"
        output.body(what, _shown(delivery), style="yellow")
    for job in event.jobs:
        _print_job(job)
    if not event.jobs:
        output.line("No processor handles this type. Register one, then `ingest replay` it.")


def _shown(delivery: DeliveryRecord) -> bytes:
    if delivery.body is not None:
        return delivery.body
    return _DROPPED if delivery.unreadable is None else f"({delivery.unreadable})".encode()


def _place(delivery: DeliveryRecord) -> list[tuple[str, str]]:
    """Return the line that names the delivery of an element."""
    if delivery.position is None:
        return []
    return [("part of", f"delivery {delivery.part_of}, element {delivery.position + 1}")]


def _print_job(job: JobRecord) -> None:
    title = f"{job.processor}: {job.state}"
    if job.next_attempt_at is not None:
        title += f", next attempt {job.next_attempt_at.isoformat(timespec='seconds')}"
    if job.breaker_open:
        title += ", waits until its target is back: the breaker is open"
    if job.waits_for is not None:
        what = "a dead letter" if job.is_behind_dead else "another job"
        title += f", waits behind {what} of its key: event {job.waits_for}"
    elif job.limited_by is not None:
        title += f", waits for {job.limited_by}"
    if not job.attempts:
        output.line(title)
        return
    rows = [_attempt_row(attempt) for attempt in job.attempts]
    output.line("")
    if output.is_terminal():
        _print_attempts(title, rows)
    else:
        output.table(title, (), rows)


def _print_attempts(title: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Print a line of each attempt, and its error below: it is longer than a terminal is wide."""
    output.wrapped(title, style="bold")
    lines = [[output.cell(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for (*told, error), (*_, raised) in zip(lines, rows, strict=True):
        padded = [f"{cell:<{width}}" for cell, width in zip(told, widths, strict=False)]
        outcome = padded.pop()
        colour = _OUTCOME_COLOURS.get(outcome.strip(), "")
        output.cut(("  " + "  ".join(padded) + "  ", ""), (outcome, colour))
        if raised is not None:
            output.wrapped(error, indent=6)


def _attempt_row(attempt: AttemptRecord) -> tuple[object, ...]:
    took = None
    if attempt.finished_at is not None:
        took = f"{(attempt.finished_at - attempt.started_at).total_seconds() * 1000:.0f} ms"
    error = ": ".join(filter(None, (attempt.error_type, attempt.error_message)))
    trigger = attempt.trigger
    if attempt.replayed_by:
        trigger += f" by {attempt.replayed_by}"
    outcome = attempt.outcome or "running"
    return (attempt.number, trigger, attempt.started_at, took, outcome, error or None)
