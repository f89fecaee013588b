"""`ingest simulate`: send a customer's events as the sender does, with retries."""

import asyncio
import contextlib
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
"""The shop's history starts in the past, so that some parcels have already arrived."""


def simulate(
    rate: Annotated[float, typer.Option(min=0.01, max=1_000_000, help="Events a second.")] = 20,
    duration: Annotated[
        float,
        typer.Option(min=0, max=1_000_000_000, help="Seconds to generate events for."),
    ] = 30,
    connections: Annotated[int, typer.Option(min=1, help="Concurrent requests, at most.")] = 16,
    duplicates: Annotated[
        float, typer.Option(min=0, max=1, help="Share that is sent twice.")
    ] = 0.05,
    late: Annotated[
        float, typer.Option(min=0, max=1, help="Share that arrives late, out of order.")
    ] = 0.1,
    burst: Annotated[int, typer.Option(min=0, help="Events to send at once every 5 s.")] = 0,
    time_factor: Annotated[
        float,
        typer.Option(min=1, max=1_000_000_000, help="Divide the sender's retry delays by this."),
    ] = 60,
    seed: Annotated[int | None, typer.Option(help="The same seed makes the same events.")] = None,
    journal: Annotated[
        Path | None, typer.Option(help="File to append a JSON line to for each request.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Where to post. Default: the receiver here.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Which sender to act as.")] = None,
) -> None:
    """Send the events of a sender's customer, such as a shop's conversations, messages and orders.

    A failed request is retried after the sender's own delays, divided by the time factor. It is
    given up after the last try."""
    configured = settings.load()
    imitated = source_of(source, configured)
    imitated.newest_secret()
    target = target_url(url, configured, imitated)
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
            journal=Journal(_open(journal, stack), clock=time.time),
        )
        occurrences = imitated.simulate(
            Random(chosen),  # noqa: S311 - a shop, not a secret
            opened_at=datetime.now(UTC) - _OPENED_BEFORE,
        )
        try:
            asyncio.run(_run(sender, occurrences, duration))
        except asyncio.CancelledError:
            raise typer.Exit(130) from None
        except ExceptionGroup as failed:  # of the tries
            raise _of_journal(failed, journal) from None
        finally:
            _report(sender.tally)
    if sender.tally.acknowledged < sender.tally.occurrences:
        raise CommandError("Not every event was acknowledged.", reason="unexpected_answers")


def _open(path: Path | None, stack: ExitStack) -> TextIO | None:
    if path is None:
        return None
    try:
        file = path.open("a", buffering=1, encoding="utf-8")
    except OSError as error:
        raise _cannot_write(path, error) from None
    stack.callback(_close, file)
    return file


def _close(file: TextIO) -> None:
    """Close the journal. A line that could not be written was told of by then."""
    with contextlib.suppress(OSError):
        file.close()


def _of_journal(failed: ExceptionGroup[Exception], path: Path | None) -> Exception:
    """Return what is to be told when tries failed: that the journal cannot be written, say."""
    of_files, others = failed.split(OSError)
    if of_files is None or others is not None or path is None:
        return failed
    error = of_files.exceptions[0]
    assert isinstance(error, OSError)
    return _cannot_write(path, error)


def _cannot_write(path: Path, error: OSError) -> CommandError:
    return CommandError(f"Cannot write {path}: {error.strerror}.", reason="no_file")


async def _run(sender: Sender, occurrences: Iterator[Occurrence], duration_s: float) -> None:
    """Run the simulation. The first Ctrl-C stops new events; the second ends at once."""
    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    assert me is not None
    signals = 0

    def interrupt() -> None:
        nonlocal signals
        signals += 1
        sender.close()
        if signals == 1:
            output.line("No new events. Finishing the pending ones; press Ctrl-C again to end now.")
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
    """Show the progress in a terminal."""
    with output.console().status("starting") as status:
        while True:
            answers = ", ".join(
                f"{name}: {count:,}" for name, count in sorted(tally.answers.items())
            )
            status.update(
                f"{output.number_of(tally.occurrences, 'event')}: "
                f"{tally.acknowledged:,} acknowledged, {tally.waiting:,} pending  ({answers})"
            )
            await asyncio.sleep(0.5)


def _report(tally: Tally) -> None:
    output.table(None, ["answer", "requests"], sorted(tally.answers.items()))
    line = (
        f"{output.number_of(tally.occurrences, 'event')}: {tally.acknowledged:,} acknowledged, "
        f"{tally.refused:,} refused, {tally.given_up:,} given up"
    )
    if tally.waiting:
        line += f", {tally.waiting:,} still pending"
    output.line(line)
