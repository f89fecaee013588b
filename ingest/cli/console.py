"""`ingest console`, and the commands that make its users and tokens."""

import getpass
import secrets
import sys
from typing import Annotated

import typer

from ingest.cli import output, processes
from ingest.cli.database import CommandError
from ingest.console.auth.roles import Role

_TOKEN_BYTES = 32

_Name = Annotated[str, typer.Argument(help="Letters and digits; after the first also . _ @ -")]
_Role = Annotated[Role, typer.Option(help="A viewer only reads; an operator can also change.")]

app = typer.Typer()


@app.callback(invoke_without_command=True)
def console(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    fd: Annotated[int | None, typer.Option(help="Listen on this inherited socket instead.")] = None,
) -> None:
    """Run the operator's console, or create users and tokens for it."""
    if context.invoked_subcommand is None:
        processes.console(host, port, fd)


@app.command("create-user")
def create_user(name: _Name = "operator", role: _Role = Role.OPERATOR) -> None:
    """Create a user of the console. Asks for the password, or reads it from a pipe."""
    from ingest.console.auth.credentials import USERS
    from ingest.console.auth.passwords import hash_password

    _check_name(name)
    password = _ask() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    _check_password(password)
    _explain(USERS, "one line for each user")
    _say("In a shell or .env put it in single quotes; in docker-compose.yml double each $.")
    output.line(f"{name}:{role}:{hash_password(password)}")


@app.command("create-token")
def create_token(name: _Name, role: _Role = Role.VIEWER) -> None:
    """Create a token for a program that uses the console's API. It is shown only once."""
    from ingest.console.auth.credentials import TOKENS, digest

    _check_name(name)
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    _say("The token. It is not stored and cannot be shown again:")
    output.line(token)
    sys.stdout.flush()
    _explain(TOKENS, "one line for each program")
    output.line(f"{name}:{role}:{digest(token)}")


def _ask() -> str:
    password = getpass.getpass("Password: ")
    if getpass.getpass("Repeat the password: ") != password:
        raise CommandError("The two passwords differ.", reason="passwords_differ")
    return password


def _check_name(name: str) -> None:
    from ingest.console.auth.credentials import NAME

    if not NAME.fullmatch(name):
        raise CommandError(
            f"{name!r} is not a valid name: use up to 64 letters and digits, after the first also"
            " . _ @ -",
            reason="bad_name",
        )


def _check_password(password: str) -> None:
    from ingest.console.auth.passwords import MAX_LENGTH, MIN_LENGTH

    if len(password) < MIN_LENGTH:
        raise CommandError(
            f"The password is shorter than {MIN_LENGTH} characters.", reason="password_short"
        )
    if len(password) > MAX_LENGTH:
        raise CommandError(
            f"The password is longer than {MAX_LENGTH} characters.", reason="password_long"
        )


def _explain(variable: str, form: str) -> None:
    """Say on stderr where the line belongs, so that a pipe receives the line alone."""
    _say(f"Add this line to {variable} ({form}), or to the file that {variable}_FILE names:")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
