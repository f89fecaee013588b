"""`ingest replay`."""

import getpass
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated
from uuid import UUID

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from sqlalchemy import Connection, Engine

from ingest import settings
from ingest.cli import output
from ingest.cli.database import CommandError, database, parse_time
from ingest.errors import NotFound
from ingest.sources.registry import configured
from ingest.store.bulk import replay as replays
from ingest.store.bulk.replay import Counts
from ingest.store.search import events as listing
from ingest.store.search.filters import EVENT_STATES, EventFilter, resolve

_REPLAYABLE = tuple(state for state in EVENT_STATES if state != "running")


def replay(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="Events, or rejected deliveries."),
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(
            help=f"One of {', '.join(_REPLAYABLE)}. Default: dead and unhandled, or any with IDs."
        ),
    ] = None,
    type_: Annotated[
        list[str] | None, typer.Option("--type", help="Event type; * stands for anything.")
    ] = None,
    processor: Annotated[str | None, typer.Option(help="Only this processor's jobs.")] = None,
    since: Annotated[str | None, typer.Option(help="2026-01-31T12:00:00Z, or 15m, 2h, 7d.")] = None,
    until: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, change nothing.")] = False,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Jobs that fall due a second, at most.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why; kept with every attempt.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Put jobs back to work: those of some events, or all that match. Their history stays.

    Events of a type that had no processor get their jobs; with --processor, so do events that lack
    that one's (give --state unhandled). Running jobs are left alone.
    """
    if state is not None and state not in _REPLAYABLE:
        raise CommandError(f"{state!r} cannot be replayed: {', '.join(_REPLAYABLE)}.", reason="bad")
    if not (ids or state or type_ or processor or since or until):
        raise CommandError(
            "Say what: ids, or a filter such as --state dead (--dry-run counts first).",
            reason="nothing_selected",
        )
    with database() as engine:
        with engine.begin() as connection:
            events, rejected = _resolve(connection, ids or [])
            reopened = _reopen(connection, rejected)
            if dry_run:
                connection.rollback()
        selection = EventFilter(
            ids=events,
            types=tuple(type_ or ()),
            processor=processor,
            state=state,
            since=parse_time(since),
            until=parse_time(until),
        )
        counts = Counts()
        if events or not ids:
            with engine.connect() as connection:
                counts = replays.count(connection, selection)
            if not dry_run and counts.total:
                done = _run(engine, selection, counts, rate, reason)
                counts = replace(done, gone=counts.gone)
    _report(counts, reopened, len(rejected), dry_run, json)


def _resolve(connection: Connection, names: list[str]) -> tuple[tuple[UUID, ...], list[UUID]]:
    """The events and the rejected deliveries that `names` mean."""
    events: list[UUID] = []
    rejected: list[UUID] = []
    for name in names:
        try:
            events += resolve(connection, [name])
        except NotFound:
            rejected.append(_rejected(connection, name))
    return tuple(events), rejected


def _rejected(connection: Connection, name: str) -> UUID:
    try:
        found = listing.delivery(connection, UUID(name))
    except (ValueError, NotFound):
        raise NotFound(f"No event and no delivery answers to {name}.", reason="not_found") from None
    if found.rejected is None:
        raise NotFound(f"The delivery {name} is still to be admitted.", reason="not_admitted")
    return found.id


def _reopen(connection: Connection, rejected: list[UUID]) -> list[UUID]:
    return (
        replays.reopen(connection, configured(settings.load().sources), rejected)
        if rejected
        else []
    )


def _run(
    engine: Engine, selection: EventFilter, planned: Counts, rate: float | None, reason: str | None
) -> Counts:
    steps = replays.run(engine, selection, requested_by=getpass.getuser(), reason=reason, rate=rate)
    done = Counts()
    for done in _shown(steps, planned.total):  # noqa: B007 - the last one counts
        pass
    return done


def _shown(steps: Iterator[Counts], total: int) -> Iterator[Counts]:
    """The steps, with a bar where a person watches."""
    columns = (TextColumn("replaying"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=output.console(), disable=not output.is_terminal()) as bar:
        task = bar.add_task("", total=total)
        for counts in steps:
            bar.update(task, completed=counts.total)
            yield counts


def _report(counts: Counts, reopened: list[UUID], rejected: int, dry_run: bool, json: bool) -> None:
    if json:
        output.as_json(
            {
                "jobs": counts.jobs,
                "events": counts.events,
                "deliveries": len(reopened),
                "running": counts.running,
                "gone": counts.gone,
                "dry_run": dry_run,
            }
        )
        return
    put = "Would put" if dry_run else "Put"
    output.line(f"{put} {output.number_of(counts.jobs, 'job')} back to work.")
    if counts.events:
        admit = "Would admit" if dry_run else "Admitted"
        output.line(f"{admit} {output.number_of(counts.events, 'event')} again, for their jobs.")
    if rejected:
        opened = "would be opened again" if dry_run else "are events now"
        output.line(f"{len(reopened)} of {rejected} rejected deliveries {opened}.")
    if counts.gone:
        output.line(f"Left {counts.gone:,} alone whose bodies were dropped.")
    if counts.running:
        running = output.number_of(counts.running, "running job")
        output.line(f"Left {running} alone.")
