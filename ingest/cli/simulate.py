"""`ingest simulate`: what happens at a sender's customer, sent as the sender sends it, retries
included."""

import asyncio
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Annotated, TextIO

import typer

from ingest import settings
from ingest.cli import output
from ingest.cli.database import CommandError, source_of, target_url
from ingest.simulation.policy import SenderRetries
from ingest.simulation.sender import Journal, Sender, Tally, TrafficProfile
from ingest.sources.base import Occurrence

_OPENED_BEFORE = timedelta(days=2)
"""The shop's history starts in the past, so that parcels have had time to arrive."""


def simulate(
    rate: Annotated[float, typer.Option(min=0.01, help="Events a second.")] = 20,
    duration: Annotated[float, typer.Option(min=0, help="Seconds.")] = 30,
    connections: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 16,
    duplicates: Annotated[
        float, typer.Option(min=0, max=1, help="Share that is sent twice.")
    ] = 0.05,
    late: Annotated[
        float, typer.Option(min=0, max=1, help="Share that arrives late, out of order.")
    ] = 0.1,
    burst: Annotated[int, typer.Option(min=0, help="That many at once, every 5 s.")] = 0,
    time_factor: Annotated[
        float, typer.Option(min=1, help="How much faster the sender's retries come.")
    ] = 60,
    seed: Annotated[int | None, typer.Option(help="Make the same shop again.")] = None,
    journal: Annotated[
        Path | None, typer.Option(help="Append a JSON line for each request.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Where to; default: the receiver here.")] = None,
    source: Annotated[str | None, typer.Option(help="As which sender.")] = None,
) -> None:
    """Send what happens at a sender's customer, such as a shop's conversations, messages and
    orders.

    What fails is sent again when the sender would send it again, divided by the time factor; after
    the last try it is given up."""
    given = settings.load()
    imitated = source_of(source, given)
    imitated.newest_secret()
    target = target_url(url, given, imitated)
    chosen = secrets.randbelow(10**6) if seed is None else seed
    random = Random(chosen)  # noqa: S311 - a shop, not a secret
    output.line(f"seed {chosen}")
    sys.stdout.flush()
    with ExitStack() as stack:
        sender = Sender(
            target,
            imitated,
            manners=TrafficProfile(
                rate=rate, connections=connections, duplicates=duplicates, late=late, burst=burst
            ),
            policy=SenderRetries(imitated.retries, time_factor=time_factor),
            random=random,
            journal=Journal(_opened(journal, stack), clock=time.time),
        )
        occurrences = imitated.simulate(
            Random(chosen),  # noqa: S311 - a shop, not a secret
            opened_at=datetime.now(UTC) - _OPENED_BEFORE,
        )
        try:
            asyncio.run(_run(sender, occurrences, duration))
        except asyncio.CancelledError:
            raise typer.Exit(130) from None
        finally:
            _report(sender.tally)
    if sender.tally.acknowledged < sender.tally.occurrences:
        raise CommandError("Not everything was taken.", reason="unexpected_answers")


def _opened(path: Path | None, stack: ExitStack) -> TextIO | None:
    if path is None:
        return None
    try:
        return stack.enter_context(path.open("a", buffering=1))
    except OSError as error:
        raise CommandError(f"Cannot write {path}: {error.strerror}.", reason="no_file") from None


async def _run(sender: Sender, occurrences: Iterator[Occurrence], duration_s: float) -> None:
    """Ctrl-C lets nothing more happen, and what has happened come through; again, it ends all."""
    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    assert me is not None
    signals = 0

    def interrupt() -> None:
        nonlocal signals
        signals += 1
        sender.close()
        if signals == 1:
            output.line("Nothing more happens; what has happened is still sent. Again: end now.")
            sys.stdout.flush()
        else:
            me.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    watcher = asyncio.create_task(_show(sender.tally))
    try:
        await sender.run(occurrences, duration_s=duration_s)
    finally:
        watcher.cancel()


async def _show(tally: Tally) -> None:
    """Tell a person at a terminal how it goes."""
    with output.console().status("opening the shop") as status:
        while True:
            answers = ", ".join(
                f"{name}: {count:,}" for name, count in sorted(tally.answers.items())
            )
            status.update(
                f"{tally.occurrences:,} happened, {tally.acknowledged:,} acknowledged, "
                f"{tally.waiting:,} under way  ({answers})"
            )
            await asyncio.sleep(0.5)


def _report(tally: Tally) -> None:
    output.table(None, ["answer", "requests"], sorted(tally.answers.items()))
    line = (
        f"{output.number_of(tally.occurrences, 'event')}: {tally.acknowledged:,} acknowledged, "
        f"{tally.refused:,} refused, {tally.given_up:,} given up"
    )
    if tally.waiting:
        line += f", {tally.waiting:,} still under way"
    output.line(line)
