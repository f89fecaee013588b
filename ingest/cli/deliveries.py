"""`ingest deliveries`: signed requests that were no event."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import typer

from ingest import settings
from ingest.cli import output
from ingest.cli.database import database
from ingest.sources.registry import configured
from ingest.store.bulk import replay
from ingest.store.search import events

app = typer.Typer(help="Look at rejected deliveries, open them again.", no_args_is_help=True)


@app.command("rejected")
def rejected(
    limit: Annotated[int, typer.Option(min=1, help="How many, at most.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List signed requests that were answered 400, newest first; `ingest replay ID` opens one
    again."""
    with database() as engine, engine.connect() as connection:
        found = list(events.rejected(connection, limit=limit))
    if json:
        for delivery in found:
            output.as_json(delivery)
        return
    now = datetime.now(UTC)
    output.table(
        None,
        ["id", "source", "reason", "bytes", "received"],
        [
            (
                each.id,
                each.source,
                each.rejected,
                each.size,
                output.ago(each.received_at, now) if output.is_terminal() else each.received_at,
            )
            for each in found
        ],
    )


@app.command("replay")
def replay_rejected(
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Open all rejected deliveries again, after an upgrade that takes what was refused before.

    Those that are events now are worked on; the others stay as they are. `ingest replay ID` does
    the same with single ones.
    """
    looked_at = opened = 0
    with database() as engine:
        steps = replay.reopen_all(engine, configured(settings.load().sources))
        for looked_at, opened in steps:  # noqa: B007 - the last ones count
            pass
    if json:
        output.as_json({"rejected": looked_at, "opened": opened})
        return
    output.line(f"{opened} of {looked_at} rejected deliveries are events now.")


@app.command("show")
def show(
    delivery: Annotated[UUID, typer.Argument(help="Its id: the X-Request-Id of the answer.")],
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show a delivery as it was received."""
    with database() as engine, engine.connect() as connection:
        found = events.delivery(connection, delivery)
    if json:
        output.as_json(found)
        return
    facts = {
        "id": found.id,
        "source": found.source,
        "received": found.received_at,
        "rejected": found.rejected or "no",
        "signed with key": found.key_id,
        **dict(found.headers),
    }
    output.table(None, ["", ""], facts.items())
    output.body("body", found.body)
