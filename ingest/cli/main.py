"""Register the commands and run them."""

import os
import sys

import psycopg
import typer
from sqlalchemy.exc import SQLAlchemyError

from ingest import __version__, environment, settings
from ingest.cli import (
    alerts,
    bulk_actions,
    console,
    deliveries,
    doctor,
    encryption,
    erase,
    events,
    export,
    processes,
    recover,
    replay,
    resend,
    retention,
    send,
    show,
    simulate,
    sources,
    stats,
    top,
    up,
    views,
)
from ingest.errors import IngestError
from ingest.store import causes

_LOGGING = ("serve", "worker", "relay", "console", "doctor")
"""Commands that tell unknown variables of the environment in a way of their own."""

app = typer.Typer(
    name="ingest",
    help="Receive signed webhooks, store them in PostgreSQL, process each exactly once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("up")(up.up)
app.command("serve")(processes.serve)
app.command("worker")(processes.worker)
app.command("relay")(processes.relay)
app.add_typer(console.app, name="console")
app.command("migrate")(processes.migrate)
app.command("doctor")(doctor.doctor)
app.command("send")(send.send)
app.command("simulate")(simulate.simulate)
app.command("stats")(stats.stats)
app.command("top")(top.top)
app.add_typer(events.app, name="events")
app.command("export")(export.export)
app.add_typer(views.app, name="views")
app.command("show")(show.show)
app.add_typer(deliveries.app, name="deliveries")
app.command("replay")(replay.replay)
app.add_typer(bulk_actions.app, name="bulk-actions")
app.command("resend")(resend.resend)
app.command("erase")(erase.erase)
app.add_typer(encryption.app, name="encryption")
app.command("recover")(recover.recover)
app.command("retention")(retention.retention)
app.add_typer(sources.app, name="sources")
app.add_typer(alerts.app, name="alerts")


@app.callback(invoke_without_command=True)
def version(
    context: typer.Context,
    show: bool = typer.Option(False, "--version", help="Print the version.", is_eager=True),
) -> None:
    if show:
        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand not in _LOGGING:
        settings.describe_sources(os.environ)
        for sentence in environment.sentences(os.environ):
            typer.echo(f"ingest: {sentence}", err=True)


def main() -> None:
    """Run a command. Print an error as one sentence on stderr and exit with code 1."""
    try:
        app()
    except IngestError as error:
        sys.exit(f"ingest: {error}")
    except (SQLAlchemyError, psycopg.Error) as error:
        sys.exit(f"ingest: {causes.explain(error).sentence}")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
