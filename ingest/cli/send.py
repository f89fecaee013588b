"""`ingest send`: post signed events as a sender does."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Annotated
from urllib.parse import urlsplit

import aiohttp
import typer

from ingest import settings, strict_json
from ingest.cli import output, suggestions
from ingest.cli.database import CommandError, source_of, target_url
from ingest.sources.base import NoSample, Samples, Source

_CONNECTIONS = 16
_TIMEOUT_S = 10


@dataclass(slots=True)
class Answers:
    """The answers to the requests."""

    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        """Return the milliseconds within which this share of the requests was answered."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000


def send(
    types: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TYPE]...", help="Event types, such as order.created."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="A file with one body, or one on each line; sent byte for byte."),
    ] = None,
    documented: Annotated[
        bool, typer.Option("--documented", help="Send the examples of the sender's documentation.")
    ] = False,
    count: Annotated[int, typer.Option(min=1, help="How often to send each.")] = 1,
    rate: Annotated[
        float | None, typer.Option(min=0.001, max=1_000_000, help="Requests a second.")
    ] = None,
    duplicates: Annotated[
        int, typer.Option(min=0, help="How many duplicates of each to send.")
    ] = 0,
    forge: Annotated[bool, typer.Option("--forge", help="Sign with a wrong secret.")] = False,
    url: Annotated[
        str | None, typer.Option(help="Where to post. Default: the receiver here.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Which sender to act as.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed makes the same events.")] = None,
) -> None:
    """Post signed events and print the answers."""
    configured = settings.load()
    sender = source_of(source, configured)
    if sum(map(bool, (types, file, documented))) != 1:
        raise CommandError(
            "Say what to send: --file, --documented, or types of "
            + ", ".join(sender.samples.types)
            + ".",
            reason="nothing_to_send",
        )
    target = target_url(url, configured, sender)
    if forge:
        sender = sender.with_secret(secrets.token_hex(16))
    sender.newest_secret()
    if file is not None:
        bodies = _from_file(file, count)
    elif documented:
        bodies = _repeated(_documented(sender), count)
    else:
        for event_type in types or ():
            _check(event_type, sender)
        bodies = _generated(sender.samples, types or [], count, Random(seed))  # noqa: S311 - samples, not secrets
    repeated = (body for body in bodies for _ in range(1 + duplicates))
    answers = Answers()
    try:
        asyncio.run(_post_all(target, sender, repeated, rate, answers))
    finally:
        _report(answers, target)
    expected = "401" if forge else "200"
    if set(answers.statuses) != {expected}:
        raise CommandError(f"Not every answer was {expected}.", reason="unexpected_answers")


def _check(event_type: str, sender: Source) -> None:
    """Say what may be meant by a type of which there is no sample.

    Raises:
        NoSample: nothing is sent of such a type.
    """
    samples = sender.samples
    close = None
    if event_type not in samples.types:
        close = suggestions.close_to(event_type, samples.types)
    if close is not None and not samples.makes_others:
        raise NoSample(
            f"There is no sample of {event_type}: did you mean {close}?", reason="bad_type"
        )
    samples.check(event_type)
    if close is not None:
        typer.echo(
            f"ingest: {sender.title} does not document {event_type}: did you mean {close}?"
            " It is sent with an id and nothing else.",
            err=True,
        )


def _documented(sender: Source) -> list[bytes]:
    if not sender.samples.documented:
        raise CommandError(
            f"There are no documented examples of {sender.title}.", reason="nothing_to_send"
        )
    return list(sender.samples.documented)


def _from_file(path: Path, rounds: int) -> Iterator[bytes]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CommandError(f"Cannot read {path}: {error.strerror}.", reason="no_file") from None
    try:
        strict_json.loads(content)
        bodies = [content]
    except strict_json.InvalidJson:
        bodies = [line for line in content.splitlines() if line.strip()]
    if not bodies:
        raise CommandError(f"{path} has no body in it.", reason="nothing_to_send")
    return _repeated(bodies, rounds)


def _repeated(bodies: list[bytes], rounds: int) -> Iterator[bytes]:
    return (body for _ in range(rounds) for body in bodies)


def _generated(samples: Samples, types: list[str], count: int, random: Random) -> Iterator[bytes]:
    for _ in range(count):
        for event_type in types:
            yield samples.make(event_type, random, datetime.now(UTC))


async def _post_all(
    url: str, sender: Source, bodies: Iterator[bytes], rate: float | None, answers: Answers
) -> None:
    started = time.monotonic()
    async with (
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS),
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
        ) as client,
        asyncio.TaskGroup() as group,
    ):
        slots = asyncio.Semaphore(_CONNECTIONS)
        for position, body in enumerate(bodies):
            if rate is not None:
                await asyncio.sleep(max(0.0, started + position / rate - time.monotonic()))
            await slots.acquire()
            task = group.create_task(_post(client, url, sender, body, answers))
            task.add_done_callback(lambda _: slots.release())


async def _post(
    client: aiohttp.ClientSession, url: str, sender: Source, body: bytes, answers: Answers
) -> None:
    headers = sender.sign(body, now=int(time.time()))
    began = time.monotonic()
    try:
        async with client.post(url, data=body, headers=headers) as answer:
            await answer.read()
        answers.statuses[str(answer.status)] += 1
        answers.seconds.append(time.monotonic() - began)
    except (aiohttp.ClientConnectorDNSError, UnicodeError):  # UnicodeError: no name of a host
        answers.statuses["unresolved"] += 1
    except aiohttp.ClientSSLError as error:
        answers.statuses[type(error).__name__] += 1
    except aiohttp.ClientConnectorError:
        answers.statuses["refused"] += 1
    except (aiohttp.ClientError, TimeoutError) as error:
        answers.statuses[type(error).__name__] += 1


def _report(answers: Answers, url: str) -> None:
    if set(answers.statuses) == {"unresolved"}:
        raise CommandError(
            f"The host name {urlsplit(url).hostname} does not resolve.", reason="host_not_found"
        )
    if set(answers.statuses) == {"refused"}:
        raise CommandError(
            f"Nothing answers at {url}: start it with `ingest up`.", reason="refused"
        )
    output.table(None, ["answer", "count"], sorted(answers.statuses.items()))
    if answers.seconds:
        output.line(
            f"answered within {answers.quantile(0.5):.1f} ms (median), "
            f"{answers.quantile(0.95):.1f} ms (95 %), {answers.quantile(1):.1f} ms (all)"
        )
