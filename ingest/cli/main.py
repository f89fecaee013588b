"""Run the command that is called."""

import importlib
import os
import sys
from collections.abc import Iterable

import psycopg
import typer
from sqlalchemy.exc import SQLAlchemyError
from typer.exceptions import TyperException

from ingest import __version__, environment, settings
from ingest.cli import start, usage
from ingest.errors import IngestError
from ingest.store import causes

_LOGGING = ("serve", "worker", "relay", "console", "doctor")
"""Commands that tell unknown variables of the environment in a way of their own."""

COMMANDS = {
    "up": "up:up",
    "serve": "processes:serve",
    "worker": "processes:worker",
    "relay": "processes:relay",
    "console": "console:app",
    "migrate": "processes:migrate",
    "doctor": "doctor:doctor",
    "send": "send:send",
    "simulate": "simulate:simulate",
    "stats": "stats:stats",
    "top": "top:top",
    "events": "events:app",
    "export": "export:export",
    "views": "views:app",
    "show": "show:show",
    "types": "types:types",
    "deliveries": "deliveries:app",
    "replay": "replay:replay",
    "bulk-actions": "bulk_actions:app",
    "resend": "resend:resend",
    "discard": "discard:discard",
    "processors": "processors:app",
    "listen": "listen:listen",
    "destinations": "destinations:app",
    "failures": "failures:app",
    "audit-log": "audit_log:audit_log",
    "erase": "erase:erase",
    "encryption": "encryption:app",
    "recover": "recover:recover",
    "retention": "retention:retention",
    "refusals": "refusals:app",
    "sources": "sources:app",
    "alerts": "alerts:app",
}
"""Which function or group of `ingest.cli` a command is, in the order of the help."""


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


def program(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """Return the program with the commands `names`. To import them all takes half a second, so
    `main` asks for the one that is called."""
    app = typer.Typer(
        name="ingest",
        help="Receive signed webhooks, store them in PostgreSQL, process each exactly once.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback(invoke_without_command=True)(version)
    for name in names:
        module, _, attribute = COMMANDS[name].partition(":")
        command = getattr(importlib.import_module(f"ingest.cli.{module}"), attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def main() -> None:
    """Run a command. Print an error as one sentence on stderr and exit with code 1; with code 2 if
    the command was called in a way that it does not take."""
    try:
        start.prepare(sys.argv[1:])
        called = [name for name in sys.argv[1:2] if name in COMMANDS]
        ended = program(called or COMMANDS)(standalone_mode=False)
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
