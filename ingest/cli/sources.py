"""`ingest sources`: the senders, what their descriptions mean, and why a request is refused."""

import dataclasses
import os
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from ingest import settings
from ingest.cli import output
from ingest.cli.database import CommandError, database, parse_time, source_of
from ingest.destinations import files as destination_files
from ingest.destinations import overview
from ingest.sources import diagnosis, registry
from ingest.sources.base import Source
from ingest.sources.described import files
from ingest.sources.described.explain import explain
from ingest.sources.described.source import DescribedSource
from ingest.store.reports import key_use
from ingest.store.reports.key_use import KeyUse, Part

app = typer.Typer(
    help="List the senders; check descriptions and saved requests.", invoke_without_command=True
)


@app.callback()
def sources(
    context: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the configured senders with their paths, the ids of their secrets, and who uses them."""
    if context.invoked_subcommand is None:
        _list(json)


@app.command("check")
def check(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", help="Files of descriptions; none: those configured."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Say in words what descriptions mean; the first mistake is told with file and line."""
    loaded = settings.load()
    classes = files.read(paths) if paths else _described()
    known = {*registry.classes(), *classes}
    destinations = destination_files.read(paths or loaded.source_files, known)
    if not classes and not destinations:
        raise CommandError(
            "No sender is described: name a file, or set INGEST_SOURCES.", reason="no_description"
        )
    for slug, source in classes.items():
        sentences = list(explain(source, max_body_bytes=loaded.max_body_bytes))
        if json:
            output.as_json({"source": slug, "title": source.title, "means": sentences})
        else:
            _print_meaning(f"{slug} ({source.title})", sentences)
    for destination in destinations:
        sentences = list(overview.explain(destination, os.environ))
        if json:
            output.as_json({"destination": destination.name, "means": sentences})
        else:
            _print_meaning(f"{destination.name} (destination)", sentences)


def _print_meaning(title: str, sentences: Iterable[str]) -> None:
    output.line(title)
    for sentence in sentences:
        output.line(f"  - {sentence}")


@app.command("verify")
def verify(
    slug: Annotated[str, typer.Argument(metavar="SOURCE", help="The sender that sent it.")],
    request: Annotated[
        Path, typer.Option(help="A file with the request as it was sent: head, empty line, body.")
    ],
    at: Annotated[
        str | None, typer.Option(help="As of then instead of now: 2026-01-31T12:00:00Z, or 2h ago.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Say step by step whether a saved request would be accepted, and what is to blame if not.

    The exit status is 1 if it would be refused.
    """
    loaded = settings.load()
    source = source_of(slug, loaded)
    moment = parse_time(at)
    steps = list(
        diagnosis.diagnose(
            source,
            diagnosis.read_request(_read(request)),
            now=int(time.time() if moment is None else moment.timestamp()),
            body_limit=source.body_limit or loaded.max_body_bytes,
        )
    )
    for step in steps:
        if json:
            output.as_json(dataclasses.asdict(step))
        else:
            output.line(f"{'ok  ' if step.is_good else 'FAIL'} {step.part}: {step.sentence}")
            if step.advice:
                output.line(f"     {step.advice}")
    if not steps[-1].is_good:
        raise typer.Exit(1)
    if not json:
        output.line("It would be accepted.")


def _list(json: bool) -> None:
    configured = settings.load()
    now = datetime.now(UTC)
    sources = registry.configured(configured.sources)
    uses = _uses(sources, now) if configured.database_url is not None else []
    rows: list[dict[str, Any]] = [
        {
            "source": source.slug,
            "path": f"/webhooks/{source.slug}",
            "keys": list(source.key_ids),
            "tolerance_s": source.tolerance_s,
            "key_use": [_as_row(use) for use in uses if use.source == source.slug],
        }
        for source in sources.values()
    ]
    if json:
        for row in rows:
            output.as_json(row)
        return
    output.table(
        None,
        ["source", "path", "keys, newest first", "tolerance"],
        [
            (
                row["source"],
                row["path"],
                ", ".join(row["keys"]) or "none: set its secrets",
                f"{row['tolerance_s']} s",
            )
            for row in rows
        ],
    )
    if uses:
        _print_uses(uses, now)


def _uses(sources: Mapping[str, Source], now: datetime) -> list[KeyUse]:
    """Return what the database knows of the keys; nothing if it does not answer."""
    keys = {slug: source.key_ids for slug, source in sources.items()}
    try:
        with database() as engine, engine.connect() as connection:
            return key_use.read(connection, keys, now=now)
    except CommandError as error:
        typer.echo(f"ingest: How keys are used is not known. {error}", err=True)
        return []


def _as_row(use: KeyUse) -> dict[str, Any]:
    """Return the use of a key for JSON."""
    return dataclasses.asdict(use)


def _print_uses(uses: list[KeyUse], now: datetime) -> None:
    output.table(
        "Deliveries by the key that signed them, with its share of its source's",
        ["source", "key", "last used", "last hour", "last day", "last 30 days", ""],
        [
            (
                use.source,
                use.key_id,
                output.ago(use.last_used_at, now) if use.last_used_at else "not in 30 days",
                *(_in_words(part) for part in (use.hour, use.day, use.month)),
                "" if use.is_configured else "retired",
            )
            for use in uses
        ],
    )


def _in_words(part: Part) -> str:
    return f"{part.deliveries:,} ({part.share:.0%})" if part.deliveries else "0"


def _described() -> dict[str, type[DescribedSource]]:
    return {
        slug: source
        for slug, source in registry.classes().items()
        if issubclass(source, DescribedSource)
    }


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}.", reason="no_file") from None
