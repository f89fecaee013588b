"""`ingest recover`: ask a sender again for the deliveries that it gave up."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import typer
from sqlalchemy import Engine

from ingest import settings
from ingest.cli import output
from ingest.cli.author import author
from ingest.cli.database import CommandError, database, parse_time, source_of
from ingest.recovery.base import MissedDelivery, Recovery, RecoveryFailed
from ingest.recovery.run import Outcome
from ingest.recovery.run import recover as run
from ingest.sources import registry
from ingest.sources.base import Source
from ingest.store.reports import audit_log, known_events, possible_losses
from ingest.store.server_time import server_time


def recover(
    slug: Annotated[str, typer.Argument(metavar="SOURCE", help="The source that missed them.")],
    since: Annotated[
        str | None,
        typer.Option(
            help="Sent at or after: 12h or 3d ago, or 2026-01-31T12:00:00Z. Default: as far back as"
            " the sender keeps deliveries."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list them; ask for nothing.")
    ] = False,
    rate: Annotated[
        float,
        typer.Option(min=0.001, max=1_000_000, help="Deliveries to ask for a second, at most."),
    ] = 1.0,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Find the deliveries that a sender counts as failed, and have it send them again.

    What is here already is not asked for. The sender's token is read from the variable or the file
    that the source's description names.
    """
    source = source_of(slug, settings.load())
    recovery = _recovery_of(source)
    now = datetime.now(UTC)
    begins = parse_time(since) or now - recovery.longest
    if begins < now - recovery.longest:
        _say(f"{source.title} keeps deliveries for {recovery.longest.days} days: older are gone.")
    outcome = Outcome()
    try:
        with database() as engine:
            listed_at = _server_time(engine)
            asyncio.run(
                run(
                    source,
                    recovery,
                    outcome,
                    since=begins,
                    known=partial(_known, engine, source),
                    dry_run=dry_run,
                    pause=partial(asyncio.sleep, 1 / rate),
                    say=_say,
                )
            )
    except (RecoveryFailed, KeyboardInterrupt):
        if outcome.wanted:  # what was done before it failed
            _report(source, outcome, begins, dry_run=dry_run, json=json)
        if outcome.asked:
            _record(source, outcome, begins, listed_at, has_ended=False)
        raise
    _report(source, outcome, begins, dry_run=dry_run, json=json)
    if not dry_run:
        _record(source, outcome, begins, listed_at, has_ended=True)
    if outcome.refused:
        raise CommandError(
            f"{output.number_of(len(outcome.refused), 'delivery', 'deliveries')} will not be sent"
            " again.",
            reason="redelivery_refused",
        )


def _recovery_of(source: Source) -> Recovery:
    recovery = source.recovery()
    if recovery is None:
        able = [slug for slug, known in registry.classes().items() if known.recovery() is not None]
        raise CommandError(
            f"{source.title} cannot be asked to send again."
            + (f" Of these it can be asked: {', '.join(able)}." if able else ""),
            reason="not_recoverable",
        )
    return recovery


def _known(engine: Engine, source: Source, event_ids: Sequence[str]) -> set[str]:
    with engine.connect() as connection:
        return known_events.known(connection, source.slug, event_ids)


def _server_time(engine: Engine) -> datetime:
    with engine.connect() as connection:
        return server_time(connection)


def _record(
    source: Source, outcome: Outcome, since: datetime, now: datetime, *, has_ended: bool
) -> None:
    """Record that it was asked, and, if nothing is left, that nothing of before `now` may be lost
    any more, by the server's clock. It takes hours for thousands, and what is lost meanwhile was
    not listed."""
    with database() as engine, engine.begin() as connection:
        losses = possible_losses.read(connection, now=now)
        first = min((loss.since for loss in losses if loss.source == source.slug), default=None)
        is_whole = has_ended and not outcome.refused and (first is None or first >= since)
        if outcome.asked or (first is not None and is_whole):
            audit_log.record(
                connection,
                by=author(),
                action=possible_losses.RECOVERED
                if is_whole
                else f"{possible_losses.RECOVERED} in part",
                target=source.slug,
                reason=f"{len(outcome.asked)} asked for again",
                at=now,
            )


def _say(sentence: str) -> None:
    typer.echo(f"ingest: {sentence}", err=True)


def _report(
    source: Source, outcome: Outcome, since: datetime, *, dry_run: bool, json: bool
) -> None:
    failed = len(outcome.known) + len(outcome.wanted)
    if json:
        output.as_json(
            {
                "source": source.slug,
                "since": since,
                "failed": failed,
                "known": len(outcome.known),
                "asked": len(outcome.asked),
                "wanted": [_row(delivery) for delivery in outcome.wanted] if dry_run else [],
                "refused": [_row(delivery) | {"why": why} for delivery, why in outcome.refused],
            }
        )
        return
    rows = [(delivery, "") for delivery in outcome.wanted] if dry_run else outcome.refused
    if rows:
        output.table(
            None,
            ["sent", "delivery", "answered", ""],
            [(delivery.sent_at, delivery.id, delivery.answered, why) for delivery, why in rows],
        )
    wanted = (
        f"{len(outcome.wanted):,} would be asked for"
        if dry_run
        else f"{_were(len(outcome.asked))} asked for again"
    )
    output.line(
        f"{output.number_of(failed, 'delivery', 'deliveries')} from {source.title} failed since"
        f" {since.isoformat(timespec='seconds')}: {_are(len(outcome.known))} here already,"
        f" {wanted}."
    )


def _are(count: int) -> str:
    return f"{count:,} {'is' if count == 1 else 'are'}"


def _were(count: int) -> str:
    return f"{count:,} {'was' if count == 1 else 'were'}"


def _row(delivery: MissedDelivery) -> dict[str, Any]:
    return {
        "delivery": delivery.id,
        "sent_at": delivery.sent_at,
        "answered": delivery.answered,
    }
