"""`ingest failures`: what fails in one way, its state, and what was rejected."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from ingest import settings
from ingest.cli import output
from ingest.cli.author import author
from ingest.cli.database import CommandError, database
from ingest.sources import registry
from ingest.store.failures.records import Sort, State
from ingest.store.reports import failures as reports
from ingest.store.reports.failures import Rejected

if TYPE_CHECKING:
    from ingest.console.services.failure_changes import FailureChanges
    from ingest.console.services.failures import FailureDetails, FailuresShown, ListedFailure

ALL = "all"
_STATES = (*State, ALL)

app = typer.Typer(
    help="List what fails, by error and place; acknowledge, resolve, mute, assign and note it.",
    invoke_without_command=True,
)

_Number = Annotated[int, typer.Argument(metavar="ID", help="The number that the list shows.")]
_Reason = Annotated[str | None, typer.Option(help="Why; kept in the audit log.")]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


@app.callback()
def failures(
    context: typer.Context,
    state: Annotated[str, typer.Option(help=f"One of {', '.join(_STATES)}.")] = State.OPEN.value,
    assigned_to: Annotated[str | None, typer.Option(help="Only those of this name.")] = None,
    sort: Annotated[
        str, typer.Option(help=f"What comes first, one of {', '.join(Sort)}.")
    ] = Sort.JOBS.value,
    json: _Json = False,
) -> None:
    """Show what fails in one way, and rejected deliveries by reason. Without `--state`, the open
    failures."""
    if context.invoked_subcommand is not None:
        return
    if state not in _STATES:
        raise CommandError(
            f"{state!r} is not a state: use {', '.join(_STATES)}.", reason="bad_state"
        )
    if sort not in tuple(Sort):
        raise CommandError(f"{sort!r} is no order: use {', '.join(Sort)}.", reason="bad_sort")
    from ingest.console.services import failures as services

    wanted = services.Wanted(
        states=tuple(State) if state == ALL else (State(state),),
        assigned_to=assigned_to,
        sort=Sort(sort),
    )
    now = datetime.now(UTC)
    sources = registry.configured(settings.load().sources)
    with database() as engine, engine.connect() as connection:
        shown = services.listed(connection, wanted, sources=sources, now=now, masked=False)
        rejected = reports.rejected(connection)
    if json:
        output.as_json(
            {
                "groups": shown.groups,
                "counts": shown.counts,
                "examined": shown.examined,
                "is_whole": shown.is_whole,
                "rejected": rejected,
            }
        )
        return
    _print_groups(shown, state, now)
    _print_rejected(rejected, now)
    if not shown.groups and not rejected and output.is_terminal():
        what = "recorded" if state == ALL else state
        output.line(f"No failure is {what}, and nothing was rejected.")


@app.command("show")
def show(number: _Number, json: _Json = False) -> None:
    """Show a failure: its state, its last error, its releases, notes and events."""
    from ingest.console.services import failures as services
    from ingest.console.services.ranges import Range

    now = datetime.now(UTC)
    sources = registry.configured(settings.load().sources)
    with database() as engine, engine.connect() as connection:
        details = services.details(
            connection, number, Range.DAY, sources=sources, now=now, masked=False
        )
    if json:
        output.as_json(details)
    else:
        _print_details(details, now)


@app.command("acknowledge")
def acknowledge(number: _Number, reason: _Reason = None, json: _Json = False) -> None:
    """Say that somebody looks after a failure."""
    with _changes() as changes:
        changes.acknowledge(author(), number, reason)
    _tell(number, json, "is acknowledged.")


@app.command("resolve")
def resolve(
    number: _Number,
    in_release: Annotated[
        str | None,
        typer.Option(
            help="The release that mends it, or `next`: attempts of those that had it are no"
            " return.",
        ),
    ] = None,
    when_succeeded: Annotated[
        bool, typer.Option(help="Resolve it once everything of it has succeeded.")
    ] = False,
    reason: _Reason = None,
    json: _Json = False,
) -> None:
    """Say that a failure is mended: if it returns, it is opened, and an alert tells."""
    with _changes() as changes:
        changes.resolve(
            author(), number, reason, in_release=in_release, when_succeeded=when_succeeded
        )
    _tell(
        number,
        json,
        "is resolved once everything of it has succeeded." if when_succeeded else "is resolved.",
    )


@app.command("mute")
def mute(
    number: _Number,
    span: Annotated[str | None, typer.Option("--for", help="For how long: 30m, 2h or 7d.")] = None,
    times: Annotated[
        int | None, typer.Option(help="Until it has happened so many times more.")
    ] = None,
    reason: _Reason = None,
    json: _Json = False,
) -> None:
    """Take a failure from the list: for ever, for a while, or until it happens so often."""
    now = datetime.now(UTC)
    until = None if span is None else now + _span(span)
    with _changes() as changes:
        changes.mute(author(), number, reason, now=now, until=until, times=times)
    how = f"until {until:%Y-%m-%d %H:%M:%S} UTC" if until else "for ever"
    if times is not None:
        how = f"until it has failed {output.number_of(times, 'time')} more"
    _tell(number, json, f"is muted {how}.")


@app.command("reopen")
def reopen(number: _Number, reason: _Reason = None, json: _Json = False) -> None:
    """Say that a failure is not mended, muted or looked after."""
    with _changes() as changes:
        changes.reopen(author(), number, reason)
    _tell(number, json, "is open.")


@app.command("assign")
def assign(
    number: _Number,
    name: Annotated[str | None, typer.Argument(help="Who is to look after it.")] = None,
    nobody: Annotated[bool, typer.Option("--nobody", help="Assign it to nobody.")] = False,
    reason: _Reason = None,
    json: _Json = False,
) -> None:
    """Give a failure to somebody, or to nobody."""
    if (name is None) is not nobody:
        raise CommandError("Name somebody, or --nobody.", reason="no_name")
    with _changes() as changes:
        changes.assign(author(), number, name, reason)
    _tell(number, json, f"is assigned to {name or 'nobody'}.")


@app.command("note")
def note(
    number: _Number,
    text: Annotated[str, typer.Argument(help="What is known of it.")],
    json: _Json = False,
) -> None:
    """Keep a note about a failure."""
    with _changes() as changes:
        kept = changes.note(author(), number, text)
    if json:
        output.as_json(kept)
    else:
        output.line(f"The note on failure {number} is kept.")


@contextmanager
def _changes() -> Iterator["FailureChanges"]:
    from ingest.console.services.failure_changes import FailureChanges

    with database() as engine:
        yield FailureChanges(engine)


def _tell(number: int, json: bool, what: str) -> None:
    if not json:
        output.line(f"Failure {number} {what}")
        return
    from ingest.console.services import failures as services

    sources = registry.configured(settings.load().sources)
    with database() as engine, engine.connect() as connection:
        group = services.one(
            connection, number, sources=sources, now=datetime.now(UTC), masked=False
        )
    output.as_json(group)


def _span(text: str) -> timedelta:
    """Return the length of `30m`, `2h` or `7d`. Raises CommandError."""
    units = {"m": "minutes", "h": "hours", "d": "days"}
    count, unit = text[:-1], units.get(text[-1:])
    if unit is None or not count.isascii() or not count.isdigit() or len(count) > 4:
        raise CommandError(f"{text!r} is not a span: write 30m, 2h or 7d.", reason="bad_span")
    return timedelta(**{unit: int(count)})


def _print_groups(shown: "FailuresShown", state: str, now: datetime) -> None:
    if shown.groups:
        columns = ["id", "jobs", "dead", "processor", "error", "place", "last", "example", "state"]
        rows = [_row(group, now) for group in shown.groups]
        title = "What fails" if state == State.OPEN else f"Failures, {state}"
        output.table(title, columns, rows, whole=("id", "jobs", "dead", "last"))
    if not shown.is_whole:
        output.line(f"Only the newest {reports.EXAMINED:,} failing jobs were looked at.")


def _row(group: "ListedFailure", now: datetime) -> tuple[object, ...]:
    error = ": ".join(filter(None, (group.error_type, group.message)))
    return (
        group.id or "new",
        group.jobs,
        group.dead,
        group.processor,
        error,
        group.place or None,
        output.ago(group.last_seen, now) if output.is_terminal() else group.last_seen,
        group.example,
        _state(group),
    )


def _state(group: "ListedFailure") -> str:
    words = "back" if group.reopened_at is not None else str(group.state)
    return words if group.assigned_to is None else f"{words}, {group.assigned_to}'s"


def _print_details(details: "FailureDetails", now: datetime) -> None:
    group = details.failure
    error = ": ".join(filter(None, (group.error_type, group.message)))
    facts = (
        ("failure", group.id),
        ("error", error),
        ("processor", group.processor),
        ("place", group.place or None),
        ("state", _state(group)),
        ("fails now", f"{output.number_of(group.jobs, 'job')}, {group.dead:,} dead"),
        ("attempts ever", group.attempts),
        ("first seen", group.first_seen),
        ("last seen", group.last_seen),
        ("to be resolved", "when all of it has succeeded" if group.resolves_itself else None),
    )
    output.table(None, ["", ""], [(name, value) for name, value in facts if value is not None])
    if details.traceback:
        output.line(output.printable(details.traceback, keep="\n"))
    common = [
        (
            field.path,
            "(absent)" if field.value is None else field.value,
            f"{field.events} of {field.examined}",
            f"{field.others_share:.0%}",
        )
        for field in details.fields
    ]
    if common:
        output.table(
            "What their bodies have in common", ["field", "value", "of these", "of others"], common
        )
    releases = [
        (one.release, one.attempts, one.first_seen, one.last_seen) for one in details.releases
    ]
    if releases:
        output.table("Releases", ["release", "attempts", "first", "last"], releases)
    events = [(event.id, event.state, str(event.title)) for event in details.events]
    if events:
        output.table("Events that fail so now", ["id", "state", "title"], events, whole=("id",))
    notes = [(output.ago(note.at, now), note.by, note.text) for note in details.notes]
    if notes:
        output.table("Notes", ["when", "by", "note"], notes, whole=("when",))


def _print_rejected(rejected: list[Rejected], now: datetime) -> None:
    if not rejected:
        return
    output.table(
        "Rejected deliveries",
        ["deliveries", "reason", "last", "example"],
        [
            (
                one.deliveries,
                one.reason,
                output.ago(one.last_seen, now) if output.is_terminal() else one.last_seen,
                one.example,
            )
            for one in rejected
        ],
        whole=("deliveries", "last"),
    )
