"""`ingest show`: all that is stored of one order, customer or conversation."""

from typing import Annotated, Any
from uuid import UUID

import typer

from ingest import settings
from ingest.cli import output
from ingest.cli.database import database
from ingest.entities import timeline
from ingest.entities.entity import entity
from ingest.entities.timeline import Entry, Order, Place, Said, Timeline
from ingest.sources.registry import configured
from ingest.store.reports.event_detail import JobRecord
from ingest.store.search.related import KINDS


def show(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.")],
    value: Annotated[str, typer.Argument(help="Its id, or a phone number however it is written.")],
    oldest_first: Annotated[
        bool, typer.Option("--oldest-first", help="Begin with the oldest event.")
    ] = False,
    source: Annotated[str | None, typer.Option(help="Only events of this sender.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many events, at most.")] = 20,
    before: Annotated[
        UUID | None, typer.Option(help="Only events older than the one of this id.")
    ] = None,
    after: Annotated[
        UUID | None, typer.Option(help="Only events newer than the one of this id.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show an order, conversation, contact, message or phone number: its events in time order with
    their jobs, and what the read model made of them."""
    wanted = entity(kind, value)
    place = Place(
        order=Order.OLDEST if oldest_first else Order.NEWEST,
        before=before,
        after=after,
        source=source,
        limit=limit,
    )
    sources = configured(settings.load().sources)
    with database() as engine, engine.connect() as connection:
        stored = timeline.read(connection, sources, wanted, place)
    if json:
        output.as_json(stored)
    else:
        _print(stored)


def _print(stored: Timeline) -> None:
    output.line(f"{stored.entity.title}: {output.number_of(stored.total, 'event')}")
    for erasure in stored.erasures:
        output.line(
            "A person was erased from this on"
            f" {erasure.requested_at.isoformat(timespec='seconds')} (erasure {erasure.id})."
        )
    for row in stored.rows:
        output.line("")
        output.table(
            f"{row.table} {output.printable(row.key)}",
            ["field", "value", "set by"],
            [(field.column, field.value, field.event_id) for field in row.fields],
            whole=("field",),
        )
    if stored.changes:
        output.line("")
        output.table(
            "statuses, newest first",
            ["at", "status", "said by"],
            [(change.at, change.status, change.event_id) for change in stored.changes],
            whole=("at",),
        )
    if stored.linked:
        output.line("")
        output.line("Belongs to it: " + ", ".join(one.title for one in stored.linked))
    output.line("")
    output.table(
        None,
        ["received", "id", "event", "says", "state"],
        [_line(entry) for entry in stored.entries],
        whole=("received", "id", "state"),
    )
    _print_rest(stored)


def _print_rest(stored: Timeline) -> None:
    if not output.is_terminal():
        return
    if stored.looked_back_to is not None:
        output.line(
            "Events of senders without a read model were looked for back to"
            f" {stored.looked_back_to.isoformat(timespec='seconds')} only."
        )
    if stored.is_cut:
        output.line("It has a great many messages: only the newest were followed to their events.")
    if stored.leaves_unfinished:
        output.line(output.LEFT_OUT)
    if stored.older is not None:
        output.line(f"Older events: --before {stored.older}")
    if stored.newer is not None:
        output.line(f"Newer events: --after {stored.newer}")


def _line(entry: Entry) -> tuple[Any, ...]:
    event = entry.event
    told = [_told(said) for said in entry.said] + [
        failure for job in entry.jobs if (failure := _failure(job)) is not None
    ]
    return (
        event.received_at,
        event.id,
        f"{event.event_id} from {event.source}",
        "erased" if entry.erasure is not None else "; ".join(told) or None,
        event.state,
    )


def _told(said: Said) -> str:
    told = f"{said.column} {said.value}"
    return told if said.fate == "set" else f"{told} ({said.fate})"


def _failure(job: JobRecord) -> str | None:
    """Return what a job that has not succeeded failed with last; None: it has not failed."""
    failed = [attempt for attempt in job.attempts if attempt.error_type or attempt.error_message]
    if not failed or job.state == "succeeded":
        return None
    error = ": ".join(filter(None, (failed[-1].error_type, failed[-1].error_message)))
    return f"{job.processor} failed {output.number_of(len(failed), 'time')}: {error}"
