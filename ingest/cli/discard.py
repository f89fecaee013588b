"""`ingest discard`: let failed or waiting jobs rest."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from ingest.cli import output
from ingest.cli.author import author
from ingest.cli.database import CommandError, database
from ingest.query import parse
from ingest.store.bulk import replay as bulk_actions
from ingest.store.bulk.replay import DISCARD, Counts
from ingest.store.search.filters import EventFilter
from ingest.store.search.named import resolve


def discard(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of events.")
    ] = None,
    query: Annotated[
        str | None, typer.Option(help="A query as in the console: 'state:dead type:order.*'.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count; change nothing.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why; kept in the audit log.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Discard the unfinished jobs of the given events, or of all events that match.

    A discarded job is not tried again and counts as no dead letter. `ingest replay` brings it back.
    """
    from ingest.cli.commands import commands

    if bool(ids) == bool(query):
        raise CommandError(
            "Name the events: ids, or --query 'state:dead', not both. --dry-run only counts them.",
            reason="nothing_selected",
        )
    selection = _selected(ids or [], query or "")
    if dry_run:
        with commands() as changes:
            counts = changes.preview(selection, DISCARD)
        _report(counts, None, json)
        return
    with commands() as changes:
        begun = changes.begin(author(), selection, action=DISCARD, reason=reason)
    _report(_finished(begun.id), begun.id, json)


def _selected(ids: list[str], text: str) -> EventFilter:
    query = parse(text, now=datetime.now(UTC))
    if query.problems:
        messages = " ".join(problem.message for problem in query.problems)
        raise CommandError(f"--query: {messages}", reason="bad_query")
    if not ids:
        return query.selection
    with database() as engine, engine.connect() as connection:
        return EventFilter(ids=tuple(resolve(connection, ids)))


def _finished(number: int) -> Counts:
    """Return what a discard has done, once it has ended. A console may work on it too.

    Ctrl-C cancels it, or the console would go on.
    """
    with database() as engine:
        try:
            while not bulk_actions.advance(engine, number).has_ended:
                pass
        except KeyboardInterrupt:
            bulk_actions.cancel(engine, number)
            raise
        with engine.connect() as connection:
            return bulk_actions.operation(connection, number).counts


def _report(counts: Counts, number: int | None, json: bool) -> None:
    if json:
        output.as_json(
            {
                "bulk_action": number,
                "jobs": counts.jobs,
                "running": counts.running,
                "dry_run": number is None,
            }
        )
        return
    verb = "Would discard" if number is None else "Discarded"
    output.line(f"{verb} {output.number_of(counts.jobs, 'job')}.")
    if counts.running:
        output.line(f"Skipped {output.number_of(counts.running, 'running job')}.")
