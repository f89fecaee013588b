"""`ingest alerts`: what is wrong, who is told, and what the configuration means."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ingest import settings
from ingest.alerts import configuration, explain
from ingest.alerts.channels import check as channels
from ingest.alerts.configuration import Configuration
from ingest.cli import output
from ingest.cli.author import author
from ingest.cli.database import CommandError, database
from ingest.store import alerts
from ingest.store.alerts import Alert

app = typer.Typer(help="List and acknowledge alerts; check and test who is told.")


@app.command("list")
def list_alerts(
    everything: Annotated[
        bool, typer.Option("--all", help="Recovered ones of the last 30 days too.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the alerts that fire."""
    with database() as engine, engine.connect() as connection:
        listed = alerts.newest(connection, recovered=everything)
    if json:
        for alert in listed:
            output.as_json(alert)
        return
    now = datetime.now(UTC)
    columns = ["id", "alert", "rule", "since", "state"]
    output.table(None, columns, [_row(alert, now) for alert in listed], whole=["id", "since"])
    if not listed and output.is_terminal():
        output.line("Nothing fires.")


@app.command("ack")
def acknowledge(
    number: Annotated[int, typer.Argument(metavar="ID", help="The number that `list` shows.")],
    reason: Annotated[str | None, typer.Option(help="Kept in the audit log.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say that you look after an alert: it is not told again unless it grows."""
    from ingest.cli.commands import commands

    with commands() as changes:
        alert = changes.acknowledge(author(), number, reason)
    if json:
        output.as_json(alert)
    else:
        output.line(f"Acknowledged by {alert.acknowledged_by}: {alert.sentence}")


@app.command("unack")
def unacknowledge(
    number: Annotated[int, typer.Argument(metavar="ID", help="The number that `list` shows.")],
    reason: Annotated[str | None, typer.Option(help="Kept in the audit log.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say that nobody looks after an alert any more: it is told again as before."""
    from ingest.cli.commands import commands

    with commands() as changes:
        alert = changes.unacknowledge(author(), number, reason)
    if json:
        output.as_json(alert)
    else:
        output.line(f"Not acknowledged any more: {alert.sentence}")


@app.command("test")
def send_test(
    channel: Annotated[
        str | None, typer.Argument(help="The channel; none: all that are configured.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Send a test message and say what came back. The exit status is 1 if one was not taken."""
    configured = _configured(None)
    names = list(configured.channels) if channel is None else [channel]
    if not names:
        raise CommandError("There is no channel: set INGEST_ALERTS.", reason="no_channel")
    results = [_tested(configured, name) for name in names]
    for name, is_taken, answer in results:
        if json:
            output.as_json({"channel": name, "is_taken": is_taken, "answer": answer})
        else:
            failed = "" if is_taken else "FAILED: "
            output.line(f"{name}: {failed}{output.printable(answer)}")
    if not all(is_taken for _, is_taken, _ in results):
        raise typer.Exit(1)


def _tested(configured: Configuration, name: str) -> tuple[str, bool, str]:
    """Return a channel, whether it took a message, and what came back."""
    from ingest.cli.commands import commands
    from ingest.console.errors import NotPossible

    try:
        with commands(configured) as changes:
            return name, True, changes.test_channel(author(), name)
    except NotPossible as error:
        return name, False, str(error).removeprefix(f"{name}: ")


@app.command("check")
def check(
    path: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The file; none: INGEST_ALERTS.")
    ] = None,
) -> None:
    """Say in words what a file means. The exit status is 1 if a secret is not in its place, or is
    of no use."""
    configured = _configured(path)
    for sentence in explain.explain(configured):
        output.line(sentence)
    unusable = list(channels.problems(configured, os.environ))
    for sentence in unusable:
        typer.echo(f"ingest: {sentence}", err=True)
    if unusable:
        raise typer.Exit(1)


def _configured(path: Path | None) -> Configuration:
    return configuration.read(settings.load().alerts if path is None else path)


def _row(alert: Alert, now: datetime) -> tuple[object, ...]:
    return (
        alert.id,
        alert.sentence,
        alert.rule,
        output.ago(alert.since, now),
        _state(alert, now),
    )


def _state(alert: Alert, now: datetime) -> str:
    if alert.recovered_at is not None:
        how = "ended" if alert.clear_since is None else "recovered"
        return f"{how} {output.ago(alert.recovered_at, now)}"
    if alert.acknowledged_by is not None:
        return f"acknowledged by {alert.acknowledged_by}"
    return "told" if alert.told_at is not None else "not told"
