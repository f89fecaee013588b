"""`ingest destinations`: the HTTP endpoints that events are forwarded to, and trying one."""

import asyncio
import dataclasses
import os
import secrets
from datetime import UTC, datetime
from random import Random
from typing import Annotated, Any

import typer

from ingest import settings
from ingest.cli import output
from ingest.cli.database import CommandError
from ingest.destinations import message, overview, samples, sending
from ingest.destinations.answer import Meaning, Verdict
from ingest.destinations.description import Destination
from ingest.destinations.message import JSON, Message
from ingest.errors import SettingsError
from ingest.settings import Settings
from ingest.sources import registry

app = typer.Typer(help="List the destinations; send a sample to one.", no_args_is_help=True)

_Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


@app.command("list")
def list_(json: _Json = False) -> None:
    """List the destinations that the files of INGEST_SOURCES describe, and whether their secrets
    are there. Addresses are shown by their host alone."""
    rows = [_row(destination) for destination in overview.described(settings.load())]
    if json:
        for row in rows:
            output.as_json(row)
        return
    columns = ["destination", "host", "types", "sources", "secrets"]
    output.table(
        None,
        columns,
        [
            (
                row["name"],
                row["host"],
                " ".join(row["types"]),
                " ".join(row["sources"]) or "all",
                row["problem"] or row["secrets"],
            )
            for row in rows
        ],
    )
    if not rows and output.is_terminal():
        output.line("No destination is described: docs/destinations.md shows how.")


@app.command("test")
def send_test(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The destination's name.")],
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Send a signed sample to a destination, once, and show the answer.

    The exit status is 1 if it was not taken.
    """
    loaded = settings.load()
    destination = _named(name, loaded)
    verdict = _send_sample(destination, loaded)
    where = overview.host(destination, os.environ)
    if json:
        output.as_json({"name": name, "host": where, **dataclasses.asdict(verdict)})
    elif verdict.meaning is Meaning.TAKEN:
        output.line(f"{where} took it: {verdict.sentence}")
    else:
        raise CommandError(f"{where} did not take it: {verdict.sentence}.", reason="not_taken")
    if verdict.meaning is not Meaning.TAKEN:
        raise typer.Exit(1)


def _row(destination: Destination) -> dict[str, Any]:
    problem, keys = None, 0
    try:
        keys = len(sending.target(destination, os.environ).keys)
    except SettingsError as error:
        problem = str(error)
    return {
        "name": destination.name,
        "host": overview.host(destination, os.environ),
        "types": destination.types,
        "sources": destination.sources,
        "body": destination.body,
        "queue": destination.queue,
        "secrets": keys,
        "problem": problem,
    }


def _named(name: str, loaded: Settings) -> Destination:
    described = {destination.name: destination for destination in overview.described(loaded)}
    destination = described.get(name)
    if destination is None:
        known = f" There is {', '.join(described)}." if described else " None is described."
        raise CommandError(f"There is no destination {name}.{known}", reason="unknown_destination")
    return destination


def _send_sample(destination: Destination, loaded: Settings) -> Verdict:
    now = datetime.now(UTC)
    sources = registry.configured(loaded.sources)
    sample = samples.make(destination, sources, random=Random(), now=now)  # noqa: S311 - a sample
    is_raw = destination.body == "raw"
    what = Message(body=sample.body, content_type=JSON) if is_raw else message.of_event(sample)
    return asyncio.run(
        sending.send(
            destination,
            sending.target(destination, os.environ),
            what,
            f"test_{secrets.token_hex(16)}",
            attempt=1,
            now=now,
        )
    )
