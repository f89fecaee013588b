"""`ingest types`: models of events' data, written from events."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from random import Random
from typing import Annotated, Any

import typer
from sqlalchemy import Engine

from ingest import event_models, settings
from ingest.cli.database import CommandError, database
from ingest.errors import InvalidEnvelope
from ingest.query import parse
from ingest.sources import operator
from ingest.sources.base import Source
from ingest.sources.registry import configured
from ingest.store.search.events import ListedEvent, batches
from ingest.store.search.exported_bodies import bodies
from ingest.store.search.filters import EventFilter

_BATCH = 50
_SAMPLES = 50
"""Of each type: fields that are there at times are in some of them."""
Data = tuple[str, str, Mapping[str, Any]]
"""The source, the type and the data of an event."""


def types(
    wanted: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TYPE]...", help="Event types, or patterns: order.*"),
    ] = None,
    from_events: Annotated[
        bool,
        typer.Option(
            "--from-events/--from-samples",
            help="From what was received, or from what senders' documentation shows.",
        ),
    ] = True,
    source: Annotated[str | None, typer.Option(help="Whose events.")] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=100_000, help="How many of the newest events to read.")
    ] = 1_000,
    output: Annotated[
        Path | None, typer.Option(help="The file to write; none: standard output.")
    ] = None,
) -> None:
    """Write a dataclass for the data of each event type, for `Event[OrderCreated]`."""
    sources = configured(settings.load().sources)
    if source is not None and source not in sources:
        raise CommandError(
            f"There is no source {source}; there is {', '.join(sources)}.", reason="unknown_source"
        )
    if from_events:
        with database() as engine:
            observed = event_models.observe(_received(engine, sources, wanted or [], source, limit))
    else:
        observed = event_models.observe(_sampled(sources, wanted or ["*"], source))
    if not observed:
        whence = "No event of such a type has" if from_events else "There is no sample that has"
        raise CommandError(f"{whence} data that can be read.", reason="nothing_to_write")
    _write(event_models.module(observed), output)


def _received(
    engine: Engine,
    sources: Mapping[str, Source],
    wanted: Sequence[str],
    source: str | None,
    limit: int,
) -> Iterator[Data]:
    """Yield the data of the newest events: as many of each wanted type, or of all in all."""
    of_source = [f"source:{source}"] if source else []
    for of_type in [[f'type:"{name}"'] for name in wanted] or [[]]:
        query = parse(" ".join((*of_source, *of_type)), now=datetime.now(UTC))
        if query.problems:
            messages = " ".join(problem.message for problem in query.problems)
            raise CommandError(messages, reason="bad_query")
        for listed in _newest(engine, query.selection, limit):
            yield from _data(engine, sources, listed)


def _newest(engine: Engine, selection: EventFilter, limit: int) -> Iterator[Sequence[ListedEvent]]:
    left = limit
    for batch in batches(engine, selection, sizes=(_BATCH, _BATCH), oldest_first=False):
        yield batch[:left]
        left -= len(batch)
        if left <= 0:
            return


def _data(
    engine: Engine, sources: Mapping[str, Source], listed: Sequence[ListedEvent]
) -> Iterator[Data]:
    """Yield the data of events whose bodies are there and can be read."""
    with engine.connect() as connection:
        found = bodies(connection, [event.id for event in listed])
    for event in listed:
        slug = operator.reader(event.source, event.event_id)
        body = found[event.id].body
        if body is None or slug not in sources:
            continue
        try:
            yield slug, event.type, sources[slug].parse(body).data
        except InvalidEnvelope:
            continue


def _sampled(
    sources: Mapping[str, Source], wanted: Sequence[str], only: str | None
) -> Iterator[Data]:
    """Yield the data of samples."""
    random = Random(0)  # noqa: S311 - samples, not secrets
    now = datetime.now(UTC)
    for slug, source in sources.items():
        if only not in (None, slug):
            continue
        for event_type in source.samples.types:
            if any(fnmatchcase(event_type, pattern) for pattern in wanted):
                for _ in range(_SAMPLES):
                    body = source.samples.make(event_type, random, now)
                    yield slug, event_type, source.parse(body).data


def _write(text: str, output: Path | None) -> None:
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(
            f"{output} cannot be written: {error.strerror}.", reason="cannot_write"
        ) from None
    typer.echo(f"Wrote {output}.", err=True)
