"""`ingest deliveries`: signed requests as they came, and those that were rejected."""

import dataclasses
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import typer

from ingest import settings
from ingest.cli import output
from ingest.cli.database import CommandError, database
from ingest.sources.registry import configured
from ingest.store.bulk import replay
from ingest.store.search import events
from ingest.store.search.events import Element, WholeDelivery

app = typer.Typer(help="Show deliveries; list and replay rejected ones.", no_args_is_help=True)


@app.command("list")
def list_(
    rejected: Annotated[
        bool, typer.Option("--rejected", help="Signed requests that were answered 400. Required.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many, at most.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List rejected deliveries, newest first.

    `ingest replay ID` processes one of them again. `ingest events list` lists those that were
    accepted.
    """
    if not rejected:
        raise CommandError(
            "Add --rejected: only rejected deliveries can be listed;"
            " `ingest events list` shows the accepted ones as events.",
            reason="nothing_selected",
        )
    with database() as engine, engine.connect() as connection:
        deliveries = list(events.rejected(connection, limit=limit))
    if json:
        for delivery in deliveries:
            output.as_json(delivery)
        return
    now = datetime.now(UTC)
    output.table(
        None,
        ["id", "source", "reason", "bytes", "received"],
        [
            (
                delivery.id,
                delivery.source,
                delivery.rejected,
                delivery.size,
                output.ago(delivery.received_at, now)
                if output.is_terminal()
                else delivery.received_at,
            )
            for delivery in deliveries
        ],
    )


@app.command("replay")
def replay_rejected(
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Check all rejected deliveries again, after an upgrade that accepts more than before.

    Deliveries that are accepted now become events and are processed. The others stay rejected.
    `ingest replay ID` does the same for single ones. Ctrl-C stops after a batch: what was accepted
    by then are events, and run as such.
    """
    checked = opened = 0
    stopped = False
    with database() as engine:
        steps = replay.reopen_all(engine, configured(settings.load().sources))
        try:
            for checked, opened in steps:  # noqa: B007 - the last counts are the totals
                pass
        except KeyboardInterrupt:
            stopped = True
    if json:
        output.as_json({"rejected": checked, "opened": opened})
    else:
        until = " until it was stopped" if stopped else ""
        output.line(
            f"{opened} of {checked} rejected deliveries were accepted{until} and are events now."
        )
    if stopped:
        raise typer.Exit(130)


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
