"""The console's users and tokens in the settings, and the commands that make them."""

import hashlib
import sys
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from typer.testing import CliRunner, Result

from ingest.cli import console as commands
from ingest.cli.database import CommandError
from ingest.cli.main import program
from ingest.console.auth.credentials import find_token, parse_tokens, parse_users
from ingest.console.auth.roles import Role
from ingest.errors import SettingsError
from tests.support.console import OTHER_PASSWORD, PASSWORD, TOKEN, TOKENS, console, hashed, users

LONG_ENOUGH = "a long enough password"


def invoke(arguments: list[str], typed: str | None = None) -> Result:
    """What `ingest ARGUMENTS` prints."""
    return CliRunner().invoke(program(["console"]), arguments, input=typed)


@pytest.fixture(autouse=True)
def _empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("separator", ["\n", " ", ";", " ; ", "\r\n\t"])
def test_users_are_separated_by_spaces_lines_or_semicolons(separator: str) -> None:
    first = f"alice:operator:{hashed(PASSWORD)}"
    second = f"victor.b@example:viewer:{hashed(OTHER_PASSWORD)}"
    found = parse_users(f"{separator}{first}{separator}{second}{separator}")
    assert {name: user.role for name, user in found.items()} == {
        "alice": Role.OPERATOR,
        "victor.b@example": Role.VIEWER,
    }
    assert found["alice"].password_hash == hashed(PASSWORD)


def test_without_the_setting_there_is_nobody() -> None:
    assert parse_users(None) == {}
    assert parse_tokens(None) == ()


HASH = "$argon2id$v=19$m=65536,t=3,p=4$" + "a" * 22 + "$" + "b" * 43


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ;\n",
        "alice",
        "alice:operator",
        "alice:operator:",
        f"alice:{HASH}",
        f":operator:{HASH}",
        f"al/ice:operator:{HASH}",
        f"{'a' * 65}:operator:{HASH}",
        f"alice:admin:{HASH}",
        f"alice:Operator:{HASH}",
        f"alice:operator:{HASH};alice:viewer:{HASH}",
        "alice:operator:sesame-open-sesame",
        f"alice:operator:{HASH[:-1]}",
        f"alice:operator:{HASH}$",
        f"alice:operator:{HASH.replace('$', '$$')}",
        f"alice:operator:{HASH.replace('argon2id', 'argon2i')}",
        f"alice:operator:{HASH.replace('m=65536', 'm=31')}",
        f"alice:operator:{HASH.replace('m=65536', 'm=99999999')}",
        f"alice:operator:{HASH.replace('t=3', 't=0')}",
        f"alice:operator:{HASH.replace('p=4', 'p=0')}",
        f"alice:operator:{HASH};victor:viewer:{hashlib.sha256(b'x').hexdigest()}",
    ],
)
def test_users_that_are_none_stop_the_start_and_are_not_repeated(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_users(text)
    said = str(caught.value)
    assert said.startswith("INGEST_CONSOLE_USERS: ")
    assert said.endswith(".")
    for secret in ("sesame", "aaaa", "bbbb", "alice", "admin"):
        assert secret not in said


@pytest.mark.parametrize(
    "text",
    [
        "",
        "deploy:operator:x",
        f"deploy:operator:{'A' * 64}",
        f"deploy:operator:{'a' * 63}",
        f"deploy:operator:{TOKEN}",
        f"deploy:{'a' * 64}",
        f"deploy:operator:{'a' * 64} deploy:viewer:{'b' * 64}",
    ],
)
def test_tokens_that_are_none_stop_the_start_and_are_not_repeated(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_tokens(text)
    assert str(caught.value).startswith("INGEST_CONSOLE_TOKENS: ")
    assert TOKEN not in str(caught.value)
    assert "aaaa" not in str(caught.value)


def test_an_empty_setting_opens_nothing() -> None:
    with pytest.raises(SettingsError, match="it is empty"):
        console(console_users="")
    with pytest.raises(SettingsError, match="it is empty"):
        console(console_tokens=" ")


def test_a_bad_setting_among_good_ones_stops_the_start() -> None:
    with pytest.raises(SettingsError, match="INGEST_CONSOLE_TOKENS"):
        console(console_users=users(), console_tokens="x")


def test_a_token_is_found_by_its_hash() -> None:
    tokens = parse_tokens(TOKENS)
    found = find_token(tokens, TOKEN)
    assert found is not None
    assert (found.name, found.role) == ("deploy", Role.OPERATOR)
    assert find_token(tokens, found.digest) is None
    assert find_token(tokens, "") is None


def test_credentials_are_not_in_a_representation() -> None:
    shown = repr(parse_users(users())) + repr(parse_tokens(TOKENS))
    assert "argon2" not in shown
    assert hashlib.sha256(TOKEN.encode()).hexdigest() not in shown


# The commands.


def test_a_password_from_a_pipe_makes_a_user() -> None:
    result = invoke(["console", "create-user", "alice"], typed=f" {LONG_ENOUGH}\r\nx\n")
    assert result.exit_code == 0
    (user,) = parse_users(result.stdout).values()
    assert (user.name, user.role) == ("alice", Role.OPERATOR)
    assert PasswordHasher().verify(user.password_hash, f" {LONG_ENOUGH}")
    assert LONG_ENOUGH not in result.output
    assert "INGEST_CONSOLE_USERS" in result.stderr


def test_a_user_may_have_another_role_and_no_name_of_their_own() -> None:
    result = invoke(["console", "create-user", "--role", "viewer"], typed=LONG_ENOUGH)
    (user,) = parse_users(result.stdout).values()
    assert (user.name, user.role) == ("operator", Role.VIEWER)


@pytest.mark.parametrize("typed", ["", "\n", "elevenchars\n", "x" * 1_025])
def test_a_password_that_is_too_short_or_too_long_is_refused(typed: str) -> None:
    result = invoke(["console", "create-user"], typed=typed)
    assert isinstance(result.exception, CommandError)
    assert result.exception.reason in ("password_short", "password_long")
    assert not result.stdout


@pytest.mark.parametrize("command", ["create-user", "create-token"])
def test_a_name_that_the_setting_could_not_hold_is_refused(command: str) -> None:
    for name in ("a:b", "a b", "", ";", "ä"):
        result = invoke(["console", command, name], typed=LONG_ENOUGH)
        assert isinstance(result.exception, CommandError)
        assert not result.stdout


def test_a_password_that_is_typed_is_typed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = [LONG_ENOUGH, LONG_ENOUGH, LONG_ENOUGH, "something else"]
    monkeypatch.setattr(sys, "stdin", _Terminal())
    monkeypatch.setattr("getpass.getpass", lambda _prompt: typed.pop(0))
    commands.create_user("alice")
    with pytest.raises(CommandError, match="differ"):
        commands.create_user("alice")


class _Terminal:
    def isatty(self) -> bool:
        return True


def test_a_token_is_shown_once_with_its_line() -> None:
    result = invoke(["console", "create-token", "deploy", "--role", "operator"])
    token, line = result.stdout.splitlines()
    assert len(token) >= 43
    found = find_token(parse_tokens(line), token)
    assert found is not None
    assert (found.name, found.role) == ("deploy", Role.OPERATOR)
    assert token not in result.stderr
    assert invoke(["console", "create-token", "deploy"]).stdout.splitlines()[0] != token


def test_a_token_looks_unless_it_is_to_change() -> None:
    line = invoke(["console", "create-token", "deploy"]).stdout.splitlines()[1]
    assert parse_tokens(line)[0].role == Role.VIEWER


def test_what_the_commands_make_logs_in() -> None:
    made = invoke(["console", "create-user", "alice"], typed=LONG_ENOUGH).stdout
    here = console(console_users=made)
    assert here.logged_in("alice", LONG_ENOUGH).get("/events").status == 200
