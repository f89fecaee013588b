"""`ingest alerts`: what is wrong, who is told, and what the configuration means."""

import getpass
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ingest import settings
from ingest.alerts import configuration, explain, testing
from ingest.alerts.channels import check as channels
from ingest.alerts.channels.base import ChannelFailed
from ingest.alerts.configuration import Configuration, SecretMissing
from ingest.cli import output
from ingest.cli.author import author
from ingest.cli.database import CommandError, database
from ingest.store import alerts
from ingest.store.alerts import Alert
from ingest.store.reports import audit_log

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
) -> None:
    """Say that you look after an alert: it is not told again unless it grows."""
    by = author()
    with database() as engine, engine.begin() as connection:
        alert = alerts.acknowledge(connection, number, by=by.name)
        target = " ".join(filter(None, (alert.rule, alert.subject)))
        audit_log.record(connection, by=by, action="acknowledge", target=target, reason=reason)
    output.line(f"Acknowledged by {alert.acknowledged_by}: {alert.sentence}")


@app.command("test")
def send_test(
    channel: Annotated[
        str | None, typer.Argument(help="The channel; none: all that are configured.")
    ] = None,
) -> None:
    """Send a test message and say what came back. The exit status is 1 if one was not taken."""
    configured = _configured(None)
    names = list(configured.channels) if channel is None else [channel]
    if not names:
        raise CommandError("There is no channel: set INGEST_ALERTS.", reason="no_channel")
    has_failed = False
    for name in names:
        try:
            answer = testing.send_test(configured, name, by=getpass.getuser(), environ=os.environ)
        except (ChannelFailed, SecretMissing) as error:
            has_failed = True
            answer = f"FAILED: {error}"
        output.line(f"{name}: {output.printable(answer)}")
    if has_failed:
        raise typer.Exit(1)


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
        return f"recovered {output.ago(alert.recovered_at, now)}"
    if alert.acknowledged_by is not None:
        return f"acknowledged by {alert.acknowledged_by}"
    return "told" if alert.told_at is not None else "not told"
