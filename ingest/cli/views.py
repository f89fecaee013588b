"""`ingest views`: searches that somebody named, for all users."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from ingest.cli import output
from ingest.cli.author import author
from ingest.cli.database import CommandError, database
from ingest.query import parse
from ingest.store import views

app = typer.Typer(help="List, save, rename and delete saved views.", no_args_is_help=True)

_Name = Annotated[str, typer.Argument(help="The view's name.")]


@app.command("list")
def list_views(
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the saved views by name."""
    with database() as engine, engine.connect() as connection:
        every = views.every(connection)
    if json:
        for view in every:
            output.as_json(view)
        return
    rows = [(view.name, view.query, _order(view.oldest_first), view.made_by) for view in every]
    output.table(None, ["name", "search", "order", "made by"], rows)
    if not every and output.is_terminal():
        output.line("There is no view. `ingest views save NAME --query …` keeps a search.")


@app.command("save")
def save(
    name: _Name,
    query: Annotated[str, typer.Option(help="The search, as in the console.")],
    oldest_first: Annotated[bool, typer.Option(help="The oldest events first.")] = False,
) -> None:
    """Keep a search under a name."""
    problems = parse(query, now=datetime.now(UTC)).problems
    if problems:
        raise CommandError(" ".join(found.message for found in problems), reason="bad_query")
    with database() as engine, engine.begin() as connection:
        by = author()
        view = views.save(connection, by=by, name=name, query=query, oldest_first=oldest_first)
    output.line(f"Saved. `ingest events list --view {view.name!r}` lists it.")


@app.command("rename")
def rename(name: _Name, new: Annotated[str, typer.Argument(help="Its new name.")]) -> None:
    """Give a view another name."""
    with database() as engine, engine.begin() as connection:
        number = views.named(connection, name).id
        view = views.rename(connection, number, new, by=author())
    output.line(f"Renamed to {view.name}.")


@app.command("delete")
def delete(name: _Name) -> None:
    """Delete a view, for everybody."""
    with database() as engine, engine.begin() as connection:
        views.delete(connection, views.named(connection, name).id, by=author())
    output.line("Deleted.")


def _order(oldest_first: bool) -> str:
    return "oldest first" if oldest_first else "newest first"
