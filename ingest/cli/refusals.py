"""`ingest refusals`: why senders were not answered 200, and from where they came."""

from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

import typer

from ingest import settings
from ingest.cli import output
from ingest.cli.database import CommandError, database, parse_time
from ingest.refusals import report
from ingest.refusals.report import ReasonGroup, RefusalSummary
from ingest.sources.registry import configured
from ingest.store.reports.refusal_counts import RefusalFilter, RefusedRequests

app = typer.Typer(help="Tell why requests were refused, and from where.", no_args_is_help=True)

_DAY = timedelta(days=1)
_TIMES = "\N{MULTIPLICATION SIGN}"
_Since = Annotated[
    str | None,
    typer.Option(help="At or after: 2026-01-31T12:00:00Z, or 15m, 2h, 7d ago. Default: 1d."),
]
_Until = Annotated[str | None, typer.Option(help="Before: the same forms. Default: now.")]
_Source = Annotated[str | None, typer.Option(help="Of this source; -: no source has that name.")]
_Reason = Annotated[str | None, typer.Option(help="The slug in the answer: signature_mismatch.")]
_Address = Annotated[str | None, typer.Option(help="From this address.")]
_Text = Annotated[str | None, typer.Option(help="A part of reason, source, address or sentence.")]


@app.command("summary")
def summary(
    since: _Since = None,
    until: _Until = None,
    source: _Source = None,
    reason: _Reason = None,
    address: _Address = None,
    text: _Text = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say why requests were refused: by reason with the likely cause, and by address."""
    now = datetime.now(UTC)
    wanted = _wanted(since, until, source, reason, address, text, now)
    sources = configured(settings.load().sources)
    with database() as engine, engine.connect() as connection:
        shown = report.summary(connection, wanted, sources, now=now)
    if json:
        output.as_json(shown)
        return
    if not shown.reasons and not shown.rejected and output.is_terminal():
        output.line("Nothing was refused.")
    _print_reasons(shown.reasons)
    _print_addresses(shown)
    for group in shown.rejected:
        deliveries = output.number_of(group.total.deliveries, "rejected delivery", _REJECTED)
        least = "at least " if group.total.is_least else ""
        output.line(f"{least}{deliveries} of {group.total.source}: {group.total.reason}")
        _print_cause(group.cause.sentence, group.cause.advice)


@app.command("list")
def list_(
    since: _Since = None,
    until: _Until = None,
    source: _Source = None,
    reason: _Reason = None,
    address: _Address = None,
    text: _Text = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many, at most.")] = 20,
    before: Annotated[
        str | None,
        typer.Option(metavar="PLACE", help="The next page, as told at the end of this one."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List refused requests, the newest first: a row for those of a minute that are alike."""
    now = datetime.now(UTC)
    wanted = _wanted(since, until, source, reason, address, text, now)
    with database() as engine, engine.connect() as connection:
        page = report.page(connection, wanted, limit=limit, before=before)
    if json:
        for row in page.refusals:
            output.as_json(row)
    else:
        output.table(None, _COLUMNS, [_row(row, now) for row in page.refusals], whole=_WHOLE)
    if page.older:
        typer.echo(f"ingest: There are older ones: --before {page.older}", err=True)


@app.command("show")
def show(
    request: Annotated[UUID, typer.Argument(help="The request_id in the answer.")],
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say why one request was refused, by the id that its sender got."""
    now = datetime.now(UTC)
    sources = configured(settings.load().sources)
    with database() as engine, engine.connect() as connection:
        shown = report.of_request(connection, request, sources, now=now)
    if json:
        output.as_json(shown)
        return
    if not shown.is_certain:
        output.line(
            f"Of the requests of {shown.at.isoformat(timespec='milliseconds')} these were refused;"
            " it is one of them, or it was not refused."
        )
    output.table(None, _COLUMNS, [_row(row, now) for row in shown.refusals], whole=_WHOLE)
    _print_reasons(shown.reasons)


_COLUMNS = ["last", "requests", "status", "told", "reason", "source", "address", "last id"]
_WHOLE = ("last", "requests", "status")
_REJECTED = "rejected deliveries"


def _wanted(
    since: str | None,
    until: str | None,
    source: str | None,
    reason: str | None,
    address: str | None,
    text: str | None,
    now: datetime,
) -> RefusalFilter:
    end = parse_time(until) or now
    begin = parse_time(since) or end - _DAY
    if begin >= end:
        raise CommandError("--since is not before --until.", reason="bad_time")
    return RefusalFilter(
        since=begin,
        until=end,
        source="" if source == "-" else source,
        reason=reason,
        client="" if address == "-" else address,
        text=text,
    )


def _row(row: RefusedRequests, now: datetime) -> tuple[object, ...]:
    return (
        output.ago(row.last_at, now) if output.is_terminal() else row.last_at,
        row.count,
        row.status,
        row.sentence,
        row.reason,
        row.source or None,
        row.client or "further addresses",
        row.request,
    )


def _print_reasons(groups: tuple[ReasonGroup, ...]) -> None:
    for group in groups:
        total = group.total
        addresses = output.number_of(total.addresses, "address", "addresses")
        more = " and further ones" if total.has_more_addresses else ""
        output.line(
            f"{total.count:,} {_TIMES} {total.status} {total.sentence or total.reason}"
            f" ({total.reason})"
        )
        output.line(
            f"  {total.source or 'no such source'}, {_moment(total.first_at)} to"
            f" {_moment(total.last_at)}, from {addresses}{more}"
        )
        _print_cause(group.cause.sentence, group.cause.advice)


def _print_cause(sentence: str, advice: str) -> None:
    output.line(f"  {output.printable(sentence)}")
    if advice:
        output.line(f"  -> {output.printable(advice)}")


def _print_addresses(shown: RefusalSummary) -> None:
    if not shown.addresses:
        return
    rows = [
        (
            address.client or "further addresses",
            address.count,
            ", ".join(f"{part.count:,} {_TIMES} {part.reason}" for part in address.reasons),
            address.first_at,
            address.last_at,
        )
        for address in shown.addresses
    ]
    output.table("From where", ["address", "requests", "reasons", "first", "last"], rows)


def _moment(at: datetime) -> str:
    return at.isoformat(timespec="seconds")
