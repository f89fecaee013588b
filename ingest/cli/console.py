"""Credentials for the console: `ingest console-password`, `ingest console-token`."""

import getpass
import secrets
import sys
from typing import Annotated

import typer

from ingest.cli import output
from ingest.cli.database import CommandError
from ingest.console.auth.roles import Role

_TOKEN_BYTES = 32

_Name = Annotated[str, typer.Argument(help="Letters, digits, and ._@- after the first.")]
_Role = Annotated[Role, typer.Option(help="A viewer looks, an operator also changes.")]


def console_password(name: _Name = "operator", role: _Role = Role.OPERATOR) -> None:
    """Make a user of the console: asks for a password, or reads it from a pipe."""
    from ingest.console.auth.credentials import USERS
    from ingest.console.auth.passwords import hash_password

    _check_name(name)
    password = _ask() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    _check_password(password)
    _explain(USERS, "who may log in, one line each")
    output.line(f"{name}:{role}:{hash_password(password)}")


def console_token(name: _Name, role: _Role = Role.VIEWER) -> None:
    """Make a token for a program that uses the console's API. It is shown this once."""
    from ingest.console.auth.credentials import TOKENS, digest

    _check_name(name)
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    _say("The token, which is kept nowhere:")
    output.line(token)
    sys.stdout.flush()
    _explain(TOKENS, "the programs, one line each")
    output.line(f"{name}:{role}:{digest(token)}")


def _ask() -> str:
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise CommandError("The two passwords differ.", reason="passwords_differ")
    return password


def _check_name(name: str) -> None:
    from ingest.console.auth.credentials import NAME

    if not NAME.fullmatch(name):
        raise CommandError(
            f"{name!r} is no name: up to 64 letters, digits, and ._@- after the first.",
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


def _explain(variable: str, what: str) -> None:
    """On stderr, so that the line alone goes into a pipe."""
    _say(f"The line for {variable} ({what}), or for the file that {variable}_FILE names.")
    if variable.endswith("USERS"):
        _say("In a shell or .env put it in single quotes; in docker-compose.yml double each $.")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
