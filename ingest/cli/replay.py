"""`ingest replay`."""

from dataclasses import replace
from typing import Annotated
from uuid import UUID

import typer
from sqlalchemy import Connection, Engine

from ingest import settings
from ingest.cli import bulk_actions, output, suggestions
from ingest.cli.author import author
from ingest.cli.database import CommandError, database, parse_time
from ingest.errors import NotFound
from ingest.query import describe
from ingest.sources.registry import configured
from ingest.store.bulk import replay as replays
from ingest.store.bulk.replay import REPLAY, Counts, Operation
from ingest.store.reports import audit_log
from ingest.store.search import events as listing
from ingest.store.search.filters import EVENT_STATES, EventFilter
from ingest.store.search.named import resolve

_REPLAYABLE = tuple(state for state in EVENT_STATES if state != "running")


def replay(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="Ids of events or rejected deliveries."),
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(
            help=f"One of {', '.join(_REPLAYABLE)}. Default: dead and unhandled; with IDs: any."
        ),
    ] = None,
    type_: Annotated[
        list[str] | None, typer.Option("--type", help="Event type; * matches any text.")
    ] = None,
    processor: Annotated[str | None, typer.Option(help="Only this processor's jobs.")] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Received at or after: 2026-01-31T12:00:00Z, or 15m, 2h, 7d ago."),
    ] = None,
    until: Annotated[str | None, typer.Option(help="Received before: the same forms.")] = None,
    all_jobs: Annotated[
        bool, typer.Option("--all-jobs", help="With IDs: also the jobs that have succeeded.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count; change nothing.")] = False,
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, max=1_000_000, help="Jobs to start a second, at most."),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why; stored with every attempt.")] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Until nothing of it waits or runs, and say what came.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Requeue the jobs of the given events, or of all events that match. Their history is kept.

    Of events that are named by ID, the jobs that have not succeeded run again; with --all-jobs, or
    --state succeeded, those that have succeeded, too. Events whose type had no processor get jobs.
    With --processor and --state unhandled, events that lack a job of that processor get one.
    Running jobs are skipped. Ctrl-C cancels: jobs that have not begun become what they were before.
    """
    if state is not None and state not in _REPLAYABLE:
        raise CommandError(
            f"{state!r} cannot be replayed: use {', '.join(_REPLAYABLE)}.", reason="bad_state"
        )
    if not (ids or state or type_ or processor or since or until):
        raise CommandError(
            "Name the events: ids, or a filter such as --state dead. --dry-run only counts them.",
            reason="nothing_selected",
        )
    with database() as engine:
        with engine.begin() as connection:
            suggestions.check_processor(connection, processor)
            suggestions.check_types(connection, type_ or ())
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
        ).for_replay(all_jobs=all_jobs)
        counts, operation = Counts(), None
        if events or not ids:
            with engine.connect() as connection:
                counts = replays.count(connection, selection)
            if not dry_run and counts.total:
                operation = _run(engine, selection, counts, rate, reason, wait=wait)
                done = operation.counts
                counts = replace(done, gone=counts.gone, succeeded=counts.succeeded)
    _report(counts, reopened, len(rejected), dry_run, json, operation)
    if operation is not None and operation.status == "cancelled":
        raise typer.Exit(130)


def _resolve(connection: Connection, names: list[str]) -> tuple[tuple[UUID, ...], list[UUID]]:
    """Return the ids of the events and of the rejected deliveries that `names` name."""
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
        delivery = listing.delivery(connection, UUID(name))
    except (ValueError, NotFound):
        raise NotFound(f"No event and no delivery has the id {name}.", reason="not_found") from None
    if delivery.rejected is None:
        raise NotFound(f"The delivery {name} is not admitted yet.", reason="not_admitted")
    return delivery.id


def _reopen(connection: Connection, rejected: list[UUID]) -> list[UUID]:
    return (
        replays.reopen(connection, configured(settings.load().sources), rejected)
        if rejected
        else []
    )


def _run(
    engine: Engine,
    selection: EventFilter,
    planned: Counts,
    rate: float | None,
    reason: str | None,
    *,
    wait: bool,
) -> Operation:
    """Replay a selection, and return what has become of it. Ctrl-C cancels it, until this ends."""
    by = author()
    with engine.begin() as connection:
        number = replays.begin(
            connection,
            selection,
            requested_by=by.name,
            reason=reason,
            rate=rate,
            total=planned.total,
        )
        audit_log.record(
            connection,
            by=by,
            action=REPLAY,
            target=describe(selection),
            reason=reason,
            replay=number,
        )
    try:
        bulk_actions.drive(engine, number)
        if wait:
            bulk_actions.wait_for(engine, number)
    except KeyboardInterrupt:
        replays.cancel(engine, number)
    with engine.connect() as connection:
        return replays.operation(connection, number)


def _report(
    counts: Counts,
    reopened: list[UUID],
    rejected: int,
    dry_run: bool,
    json: bool,
    operation: Operation | None,
) -> None:
    if json:
        output.as_json(
            {
                "jobs": counts.jobs,
                "events": counts.events,
                "deliveries": len(reopened),
                "running": counts.running,
                "gone": counts.gone,
                "succeeded": counts.succeeded,
                "dry_run": dry_run,
                "bulk_action": operation,
            }
        )
        return
    requeued = "Would requeue" if dry_run else "Requeued"
    output.line(f"{requeued} {output.number_of(counts.jobs, 'job')}.")
    if counts.events:
        admit = "Would admit" if dry_run else "Admitted"
        output.line(f"{admit} {output.number_of(counts.events, 'event')} again to create jobs.")
    if rejected:
        accepted = "would be accepted" if dry_run else "were accepted and are events now"
        output.line(f"{len(reopened)} of {rejected} rejected deliveries {accepted}.")
    if counts.succeeded:
        jobs = output.number_of(counts.succeeded, "job")
        output.line(f"Skipped {jobs}: succeeded already. --all-jobs runs all.")
    if counts.gone:
        output.line(f"Skipped {counts.gone:,}: the body was erased, or deleted by retention.")
    if counts.running:
        running = output.number_of(counts.running, "running job")
        output.line(f"Skipped {running}.")
    if operation is not None:
        bulk_actions.report(operation)
        if operation.is_moving:
            output.line(f"`ingest bulk-actions show {operation.id}` tells what becomes of them.")
