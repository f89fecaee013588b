"""`ingest deliveries`: signed requests as they came, and those that were rejected."""

import dataclasses
import time
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import typer
from sqlalchemy import Engine

from ingest import settings
from ingest.cli import output
from ingest.cli.database import CommandError, database, parse_time
from ingest.refusals import report
from ingest.sources.registry import configured
from ingest.store.bulk import replay
from ingest.store.bulk.replay import Reopened
from ingest.store.reports.rejected import RejectedFilter
from ingest.store.search import events
from ingest.store.search.events import Element, WholeDelivery

_POLL_S = 0.5
_BATCH = 500
app = typer.Typer(help="Show deliveries; list and replay rejected ones.", no_args_is_help=True)


@app.command("list")
def list_(
    rejected: Annotated[
        bool, typer.Option("--rejected", help="Signed requests that were answered 400. Required.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(help="Received at or after: 2026-01-31T12:00:00Z, or 15m, 2h, 7d ago."),
    ] = None,
    until: Annotated[str | None, typer.Option(help="Received before: the same forms.")] = None,
    source: Annotated[str | None, typer.Option(help="Only of this source.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only for this reason.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, at most.")] = 20,
    before: Annotated[
        UUID | None, typer.Option(metavar="ID", help="Only those before the delivery of this id.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List rejected deliveries, newest first, with what their senders were told.

    `ingest replay ID` processes one of them again. `ingest events list` lists those that were
    accepted.
    """
    if not rejected:
        raise CommandError(
            "Add --rejected: only rejected deliveries can be listed;"
            " `ingest events list` shows the accepted ones as events.",
            reason="nothing_selected",
        )
    now = datetime.now(UTC)
    wanted = RejectedFilter(
        since=parse_time(since), until=parse_time(until), source=source, reason=reason
    )
    with database() as engine, engine.connect() as connection:
        page = report.rejected_page(connection, wanted, limit=limit, before=before, now=now)
    deliveries = page.deliveries
    if json:
        for delivery in deliveries:
            output.as_json(delivery)
        return
    output.table(
        None,
        ["id", "source", "reason", "bytes", "received", "told"],
        [
            (
                delivery.id,
                delivery.source,
                delivery.rejected,
                delivery.size,
                output.ago(delivery.received_at, now)
                if output.is_terminal()
                else delivery.received_at,
                delivery.sentence,
            )
            for delivery in deliveries
        ],
    )


@app.command("replay")
def replay_rejected(
    wait: Annotated[
        bool, typer.Option("--wait", help="Until nothing of it waits or runs, and say what came.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Check all rejected deliveries again, after an upgrade that accepts more than before.

    Deliveries that are accepted now become events and are processed. The others stay rejected.
    `ingest replay ID` does the same for single ones. Ctrl-C stops after a batch: what was accepted
    by then are events, and run as such.
    """
    checked, stopped = 0, False
    opened: list[UUID] = []
    outcome = None
    with database() as engine:
        steps = replay.reopen_all(engine, configured(settings.load().sources))
        try:
            for parsed, accepted in steps:
                checked += parsed
                opened += accepted
            if wait:
                outcome = _wait_for(engine, opened)
        except KeyboardInterrupt:
            stopped = True
    if json:
        told = {} if outcome is None else {"outcome": outcome}
        output.as_json({"rejected": checked, "opened": len(opened)} | told)
    else:
        until = " until it was stopped" if stopped else ""
        output.line(
            f"{len(opened)} of {checked} rejected deliveries were accepted{until} and are events"
            " now."
        )
        if outcome is not None:
            jobs = output.number_of(outcome.succeeded + outcome.dead, "job")
            output.line(f"{jobs} ended: {outcome.succeeded:,} succeeded, {outcome.dead:,} died.")
    if stopped:
        raise typer.Exit(130)


def _wait_for(engine: Engine, opened: list[UUID]) -> Reopened:
    """Return what has become of deliveries once nothing of them waits or runs."""
    succeeded = dead = 0
    for first in range(0, len(opened), _BATCH):
        batch = opened[first : first + _BATCH]
        while True:
            with engine.connect() as connection:
                outcome = replay.became(connection, batch)
            if not outcome.is_moving:
                break
            time.sleep(_POLL_S)
        succeeded, dead = succeeded + outcome.succeeded, dead + outcome.dead
    return Reopened(unadmitted=0, unfinished=0, succeeded=succeeded, dead=dead)


@app.command("show")
def show(
    delivery: Annotated[UUID, typer.Argument(help="Its id: the X-Request-Id of the answer.")],
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show a delivery as it was received, and the events that it holds."""
    with database() as engine, engine.connect() as connection:
        record = events.delivery(connection, delivery)
        elements = events.elements(connection, delivery)
    if json:
        output.as_json(dataclasses.asdict(record) | {"elements": elements})
        return
    facts = {
        "id": record.id,
        "source": record.source,
        "received": record.received_at,
        "rejected": record.rejected or "no",
        "part of": record.part_of,
        "signed with key": record.key_id,
        **dict(record.headers),
    }
    output.table(None, ["", ""], [(name, value) for name, value in facts.items() if value])
    output.body("body", _shown(record))
    if elements:
        output.line("")
        output.table(
            output.number_of(len(elements), "element"),
            ["", "id", "event id", "became"],
            [
                (element.position + 1, element.id, element.event_id, _became(element))
                for element in elements
            ],
            whole=("", "id", "became"),
        )


def _shown(delivery: WholeDelivery) -> bytes:
    if delivery.body is not None:
        return delivery.body
    return f"({delivery.unreadable or 'erased'})".encode()


def _became(element: Element) -> str:
    """Return what became of an element, in words."""
    if element.rejected is not None:
        return f"rejected: {element.rejected}"
    if element.event is None:
        return "not admitted yet"
    if element.conflict:
        return f"duplicate of {element.event}, with a different body"
    return f"duplicate of {element.event}" if element.is_duplicate else "event"
