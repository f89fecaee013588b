"""`ingest listen`: forward events to an address as they are received, to try an application."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import typer

from ingest import outgoing, settings, standard_webhooks
from ingest.cli import output
from ingest.cli.author import author
from ingest.cli.database import CommandError, database, parse_time
from ingest.destinations import message
from ingest.destinations.listening import Forwarding, Listening
from ingest.outgoing import NoAnswer
from ingest.query import parse
from ingest.setting_values import is_web_address
from ingest.sources.registry import configured
from ingest.store.reports import audit_log
from ingest.store.search.filters import EventFilter

INTERVAL_S = 0.5
_TIMEOUT_S = 30.0
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class _Forwarded:
    """How the forwarding of an event ended."""

    told: str
    is_taken: bool


def listen(
    search: Annotated[
        str | None, typer.Argument(metavar="[SEARCH]", help="A search as in the console.")
    ] = None,
    forward: Annotated[
        str, typer.Option(metavar="URL", help="Where to post, such as http://localhost:3000/hooks.")
    ] = "",
    since: Annotated[
        str | None,
        typer.Option(help="Received at or after: 2026-01-31T12:00:00Z, or 15m, 2h ago; none: now."),
    ] = None,
    secret: Annotated[
        str | None, typer.Option(help="What to sign with; none: a new one, which is printed.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="The bodies as they were received.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Forward events to an address until Ctrl-C: new ones, and those since a time.

    They are signed as a destination's. Nothing is counted as work: no job is made, and what is not
    taken is not tried again.
    """
    if not is_web_address(forward):
        raise CommandError(
            "Say where to forward to: --forward http://localhost:3000/hooks.", reason="bad_url"
        )
    now = datetime.now(UTC)
    selection = _selection(search or "", now)
    signing = secret or standard_webhooks.new_secret(os.urandom(_SECRET_BYTES))
    key = _key(signing)
    with database() as engine:
        with engine.begin() as connection:
            audit_log.record(
                connection, by=author(), action="listen", target=search or "all events"
            )
        listening = Listening(
            engine,
            selection,
            configured(settings.load().sources),
            since=parse_time(since) or now,
            is_raw=raw,
        )
        if secret is None:
            typer.echo(f"Signed with {signing}", err=True)
        typer.echo(f"Events are forwarded to {forward} until Ctrl-C.", err=True)
        with contextlib.suppress(KeyboardInterrupt):
            for forwarding in _endless(listening):
                _tell(forwarding, _forward(forwarding, forward, key), json=json)
                sys.stdout.flush()  # into a pipe, too
    typer.echo("Stopped.", err=True)


def _selection(search: str, now: datetime) -> EventFilter:
    found = parse(search, now=now)
    if found.problems:
        messages = " ".join(problem.message for problem in found.problems)
        raise CommandError(messages, reason="bad_query")
    return found.selection


def _key(secret: str) -> bytes:
    try:
        return standard_webhooks.key(secret)
    except ValueError as error:
        raise CommandError(f"--secret: {error}.", reason="bad_secret") from None


def _endless(listening: Listening) -> Iterator[Forwarding]:
    while True:
        yield from listening.new(datetime.now(UTC))
        time.sleep(INTERVAL_S)


def _forward(forwarding: Forwarding, url: str, key: bytes) -> _Forwarded:
    if forwarding.message is None:
        return _Forwarded(told=f"not sent: {forwarding.missing}", is_taken=False)
    headers = message.headers(
        forwarding.message,
        f"{forwarding.event.id}:listen",
        [key],
        timestamp=int(time.time()),
        attempt=1,
    )
    began = time.monotonic()
    request = outgoing.request("POST", url, forwarding.message.body, headers, timeout_s=_TIMEOUT_S)
    try:
        answer = asyncio.run(request)
    except NoAnswer as error:
        return _Forwarded(told=str(error), is_taken=False)
    took_ms = (time.monotonic() - began) * 1000
    return _Forwarded(told=f"{answer.status} in {took_ms:.0f} ms", is_taken=answer.is_success)


def _tell(forwarding: Forwarding, forwarded: _Forwarded, *, json: bool) -> None:
    event = forwarding.event
    if json:
        output.as_json(
            {
                "id": event.id,
                "event_id": event.event_id,
                "type": event.type,
                "taken": forwarded.is_taken,
                "answer": forwarded.told,
            }
        )
        return
    if not output.is_terminal():
        output.row((event.received_at, forwarded.told, event.type, event.event_id))
        return
    colour = "green" if forwarded.is_taken else "red"
    output.cut(
        (f"{event.received_at.astimezone():%H:%M:%S}  ", "dim"),
        (forwarded.told, colour),
        (f"  {event.event_id}", ""),
    )
