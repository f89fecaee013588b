"""`ingest resend`: send an event with an edited body."""

import os
import sys
import time
from pathlib import Path
from typing import Annotated
from uuid import UUID, uuid4

import typer

from ingest import resending, settings
from ingest.cli import output
from ingest.cli.author import author
from ingest.cli.database import CommandError, database
from ingest.resending import Examined, NotStored, Sent
from ingest.sources.registry import configured
from ingest.store.search.named import resolve


def resend(
    event: Annotated[str, typer.Argument(help="The event's id, or its id at the sender.")],
    body: Annotated[Path, typer.Option(help="A file with the edited body; - reads it from stdin.")],
    reason: Annotated[str | None, typer.Option(help="Kept in the audit log.")] = None,
    number: Annotated[
        UUID | None, typer.Option(help="Of this order: the same again sends nothing more.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what it would become, and send nothing.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Send an event with an edited body, as an event of the source `operator`.

    `ingest events show ID --json` prints the body that it has.
    """
    raw = _read(body)
    loaded = settings.load()
    sources = configured(loaded.sources)
    sent = None
    with database() as engine:
        with engine.connect() as connection:
            (identity, *more) = resolve(connection, [event])
            if more:
                raise CommandError(
                    f"{event} names {len(more) + 1} events: give the id of one.",
                    reason="several_events",
                )
            edited = resending.origin(connection, sources, identity)
            examined = resending.examine(
                connection, sources, edited, raw, body_limit=loaded.max_body_bytes
            )
        if not dry_run:
            number = number or uuid4()
            try:
                sent = resending.send(
                    engine,
                    loaded.database,
                    examined,
                    number=number,
                    by=author(),
                    reason=reason,
                    now=time.time(),
                    random=os.urandom,
                )
            except KeyboardInterrupt:
                raise CommandError(
                    "Ended before PostgreSQL answered, so it may be sent. Repeat it with"
                    f" --number {number}: then it is sent once.",
                    reason="interrupted",
                ) from None
            except NotStored as error:
                raise CommandError(
                    f"{error} Repeat it with --number {number}: then it is sent once.",
                    reason=error.reason,
                ) from error
    _report(examined, sent, json=json)


def _read(path: Path) -> bytes:
    if str(path) == "-":
        return sys.stdin.buffer.read()
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandError(f"Cannot read {path}: {error.strerror}.", reason="no_file") from None


def _report(examined: Examined, sent: Sent | None, *, json: bool) -> None:
    if json:
        output.as_json(
            {
                "source": examined.origin.source,
                "type": examined.identity.type,
                "event_id": examined.identity.event_id,
                "known": examined.known,
                "processors": examined.processors,
                "event": None if sent is None else sent.event,
                "is_new": sent is not None and sent.is_new,
            }
        )
        return
    of_sender = f"{output.printable(examined.identity.event_id)} of {examined.origin.source}"
    known = "a duplicate there" if examined.known else "a new event there"
    output.line(f"Read as {of_sender}: {known}.")
    processors = ", ".join(examined.processors) or "none, it is unhandled"
    output.line(f"Processors of {output.printable(examined.identity.type)}: {processors}.")
    if sent is None:
        output.line("Nothing was sent.")
    elif sent.is_new:
        output.line(f"Sent as event {sent.event} of the source operator.")
    else:
        output.line(f"Sent before, as event {sent.event} of the source operator.")
