"""`ingest erase`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn
from sqlalchemy import Engine

from ingest import settings
from ingest.cli import output
from ingest.cli.author import author
from ingest.cli.database import CommandError, database
from ingest.erasure import orders, report, request, run, sentences
from ingest.erasure.person import Person
from ingest.erasure.request import Names
from ingest.erasure.row_rate import RowRate
from ingest.erasure.run import Counts, Eraser, Position
from ingest.erasure.traces import vacuum_statements
from ingest.sources.base import Source
from ingest.sources.registry import configured
from ingest.store.erasure import records
from ingest.store.erasure.records import ERASING, FINISHED, Erasure
from ingest.store.reports import audit_log


def erase(
    phone: Annotated[
        list[str] | None, typer.Option(help="A phone number of the person, however written.")
    ] = None,
    contact: Annotated[
        list[str] | None, typer.Option(help="An id of the person: contact, user or customer id.")
    ] = None,
    conversation: Annotated[
        list[str] | None, typer.Option(help="A conversation with the person.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Only what this source sent. Default: all sources.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only look and count; change nothing.")
    ] = False,
    rate: Annotated[
        float | None, typer.Option(min=1, max=1_000_000_000, help="Rows to read a second, at most.")
    ] = None,
    reason: Annotated[
        str | None, typer.Option(help="Why; it is kept, so it must not name the person.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Erase one person: bodies, headers, read model, errors, searches. Events stay as tombstones.

    Each option may be repeated: all that is given is one person. Run it again to erase what has
    come since. An erasure that was interrupted goes on when it is asked for again.
    """
    named = request.parse(phone or [], contact or [], conversation or [])
    sources = configured(settings.load().sources)
    if source is not None and source not in sources:
        raise CommandError(
            f"There is no source {source}; there is {', '.join(sources)}.", reason="unknown_source"
        )
    with database() as engine:
        with engine.connect() as connection:
            if not dry_run:
                orders.refuse_older_workers(connection)
            before = orders.before(connection, named, source)
        unfinished = [erasure for erasure in before if erasure.status == ERASING]
        if unfinished and not dry_run:
            _say_it_goes_on(unfinished[-1], json)
            erasure = unfinished[-1]
        else:
            search = _search(engine, sources, named, source, rate)
            finished = [erasure for erasure in before if erasure.status == FINISHED]
            _show(search, finished, dry_run=dry_run, json=json)
            if dry_run or not search.counts.total:
                if not finished and not search.counts.total:
                    raise typer.Exit(1)
                return
            _confirm(named, yes)
            erasure = _begin(engine, named, search, source, reason)
        ended = _run(engine, sources, erasure, rate)
        with engine.connect() as connection:
            events = records.erased_events(connection, ended.id)
    if json:
        output.as_json(_document(ended, events))
    else:
        _report(ended, len(events))


class _Search:
    """What a search came to."""

    def __init__(self, person: Person) -> None:
        self.person = person
        self.counts = Counts()
        self.position = Position()


def _search(
    engine: Engine, sources: dict[str, Source], named: Names, source: str | None, rate: float | None
) -> _Search:
    search = _Search(request.person(named))
    eraser = Eraser(sources=sources, source=source)
    with _progress("searching") as tell:
        has_ended = False
        limit = RowRate(rate)
        while not has_ended:
            with engine.connect() as connection:
                has_ended = eraser.search_batch(
                    connection, search.person, search.position, search.counts
                )
            tell(search.position)
            limit.wait(search.position.read)
    request.check_is_one(search.person)
    return search


def _begin(
    engine: Engine, named: Names, search: _Search, source: str | None, reason: str | None
) -> Erasure:
    by = author()
    with engine.begin() as connection:
        erasure = orders.begin(
            connection,
            named,
            search.person,
            source=source,
            reason=reason,
            by=by.name,
            random=os.urandom,
        )
        target = f"erasure {erasure.id}"
        audit_log.record(connection, by=by, action="erase person", target=target, reason=reason)
    return erasure


def _run(
    engine: Engine, sources: dict[str, Source], erasure: Erasure, rate: float | None
) -> Erasure:
    limit = RowRate(rate, read=Position(**erasure.position).read)
    with _progress("erasing") as tell:
        while erasure.status == ERASING:
            erasure = run.advance(
                engine, lambda record: Eraser(sources=sources, source=record.source), erasure.id
            )
            position = Position(**erasure.position)
            tell(position)
            limit.wait(position.read)
    return erasure


@contextmanager
def _progress(verb: str) -> Iterator[Any]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"))
    with Progress(
        *columns, console=output.console(), disable=not output.is_terminal(), transient=True
    ) as bar:
        task = bar.add_task(verb)

        def tell(position: Position) -> None:
            bar.update(
                task, description=f"{verb}: {position.read:,} rows read, round {position.round}"
            )

        yield tell


def _show(search: _Search, before: list[Erasure], *, dry_run: bool, json: bool) -> None:
    if json:
        if dry_run or not search.counts.total:
            output.as_json(
                {"dry_run": dry_run, "erased_before": _times(before), **_counts(search.counts)}
                | {"person": report.sizes(search.person), "events": search.counts.sample}
            )
        return
    for erasure in before:
        output.line(sentences.erased_before(erasure.id, erasure.finished_at))
    if not search.counts.total:
        output.line(sentences.NOTHING)
        return
    output.line(sentences.known(report.sizes(search.person)))
    if search.person.shared:
        output.line(sentences.shared(len(search.person.shared)))
    _table(search.counts)


def _table(counts: Counts) -> None:
    output.table("By source", ["source", "deliveries"], sorted(counts.sources.items()))
    output.table("By table", ["table", "rows"], sorted(counts.tables.items()))
    if counts.sample:
        output.table("Some of the events", ["id"], [(event,) for event in counts.sample])


def _confirm(named: Names, yes: bool) -> None:
    if yes:
        return
    if not output.is_terminal():
        raise CommandError(
            "Nothing was erased: add --yes to erase without being asked.", reason="not_confirmed"
        )
    kind, value = named[0]
    typed = typer.prompt(f"{sentences.CANNOT_BE_UNDONE} Type the {kind} again to erase the person")
    if typed.strip() != value and request.parse(*_by_kind(kind, typed)) != ((kind, value),):
        raise CommandError(sentences.ANOTHER_PERSON, reason="not_confirmed")


def _by_kind(kind: str, value: str) -> tuple[list[str], list[str], list[str]]:
    return (
        [value] if kind == "phone" else [],
        [value] if kind == "contact" else [],
        [value] if kind == "conversation" else [],
    )


def _say_it_goes_on(erasure: Erasure, json: bool) -> None:
    if not json:
        output.line(sentences.goes_on(erasure.id, erasure.requested_at))


def _report(erasure: Erasure, events: int) -> None:
    counts = Counts.from_json(erasure.counts)
    output.line(sentences.ended(erasure.id, events))
    output.table("By table", ["table", "rows"], sorted(counts.tables.items()))
    if counts.jobs:
        output.line(sentences.given_up(counts.jobs))
    output.line(sentences.BYTES_STAY)
    for statement in vacuum_statements(counts.tables):
        output.line(f"  {statement}")


def _document(erasure: Erasure, events: list[Any]) -> dict[str, Any]:
    counts = Counts.from_json(erasure.counts)
    return {
        "dry_run": False,
        "erasure": erasure.id,
        "finished_at": erasure.finished_at,
        **_counts(counts),
        "events": events,
        "vacuum": vacuum_statements(counts.tables),
    }


def _counts(counts: Counts) -> dict[str, Any]:
    return {"sources": counts.sources, "tables": counts.tables, "jobs": counts.jobs}


def _times(before: list[Erasure]) -> list[dict[str, Any]]:
    return [{"erasure": erasure.id, "finished_at": erasure.finished_at} for erasure in before]
