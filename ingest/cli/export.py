"""`ingest export`: what a search means, as CSV or JSON lines."""

import contextlib
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from ingest.cli.author import author
from ingest.cli.database import CommandError, database
from ingest.export import Export, Form, WantedExport
from ingest.query import parse
from ingest.store import views


def export(
    query: Annotated[
        str | None, typer.Option(help="A search as in the console; none: all events.")
    ] = None,
    view: Annotated[str | None, typer.Option(help="The search of a saved view.")] = None,
    form: Annotated[
        Form, typer.Option("--format", help="CSV for spreadsheets, JSON lines for programs.")
    ] = Form.JSON_LINES,
    bodies: Annotated[bool, typer.Option(help="With the bodies as they were received.")] = False,
    oldest_first: Annotated[bool, typer.Option(help="The oldest events first.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="The file to write; none: standard output.")
    ] = None,
) -> None:
    """Export what a search means. The audit log keeps who exported what, and how many rows."""
    if query is not None and view is not None:
        raise CommandError("Give --query or --view, not both.", reason="bad_query")
    with database() as engine:
        if view is not None:
            with engine.connect() as connection:
                saved = views.named(connection, view)
            query, oldest_first = saved.query, oldest_first or saved.oldest_first
        found = parse(query or "", now=datetime.now(UTC))
        if found.problems:
            messages = " ".join(problem.message for problem in found.problems)
            raise CommandError(messages, reason="bad_query")
        wanted = WantedExport(
            query=query or "",
            selection=found.selection,
            form=form,
            oldest_first=oldest_first,
            with_bodies=bodies,
        )
        with _opened(output) as file:
            pieces = Export(engine, wanted, by=author())
            with contextlib.closing(pieces):
                for piece in pieces:
                    file.write(piece)
                file.flush()
    rows = f"{pieces.rows:,} {'row' if pieces.rows == 1 else 'rows'}"
    typer.echo(f"Exported {rows}.", err=True)


def _opened(output: Path | None) -> contextlib.AbstractContextManager[BinaryIO]:
    if output is None:
        return contextlib.nullcontext(sys.stdout.buffer)
    try:
        return output.open("wb")
    except OSError as error:
        raise CommandError(
            f"{output} cannot be written: {error.strerror}.", reason="cannot_write"
        ) from None
