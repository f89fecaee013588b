"""Register the commands and run them."""

import os
import sys

import psycopg
import typer
from sqlalchemy.exc import SQLAlchemyError
from typer.exceptions import TyperException

from ingest import __version__, environment, settings
from ingest.cli import (
    alerts,
    audit_log,
    bulk_actions,
    console,
    deliveries,
    destinations,
    discard,
    doctor,
    encryption,
    erase,
    events,
    export,
    failures,
    listen,
    processes,
    processors,
    recover,
    refusals,
    replay,
    resend,
    retention,
    send,
    show,
    simulate,
    sources,
    stats,
    top,
    types,
    up,
    usage,
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
app.command("types")(types.types)
app.add_typer(deliveries.app, name="deliveries")
app.command("replay")(replay.replay)
app.add_typer(bulk_actions.app, name="bulk-actions")
app.command("resend")(resend.resend)
app.command("discard")(discard.discard)
app.add_typer(processors.app, name="processors")
app.command("listen")(listen.listen)
app.add_typer(destinations.app, name="destinations")
app.add_typer(failures.app, name="failures")
app.command("audit-log")(audit_log.audit_log)
app.command("erase")(erase.erase)
app.add_typer(encryption.app, name="encryption")
app.command("recover")(recover.recover)
app.command("retention")(retention.retention)
app.add_typer(refusals.app, name="refusals")
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
    """Run a command. Print an error as one sentence on stderr and exit with code 1; with code 2 if
    the command was called in a way that it does not take."""
    try:
        ended = app(standalone_mode=False)
        sys.exit(ended if isinstance(ended, int) else 0)
    except TyperException as error:
        _refuse(error)
    except typer.Abort:
        sys.exit("ingest: Given up.")
    except IngestError as error:
        sys.exit(f"ingest: {error}")
    except (SQLAlchemyError, psycopg.Error) as error:
        sys.exit(f"ingest: {causes.explain(error).sentence}")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


def _refuse(error: TyperException) -> None:
    """Say what is wrong with the call. Called alone, a group of commands says what they are."""
    text = error.format_message()
    if text.startswith("Usage:"):
        typer.echo(text, err=True)
    else:
        typer.echo(f"ingest: {usage.sentence(error)}", err=True)
    sys.exit(error.exit_code)
