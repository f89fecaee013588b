"""A command that is called in a way that it does not take says so in one plain sentence."""

import sys
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import typer

from ingest.cli import main

JARGON = ("Invalid value", "Input should", "Value error", "Usage", "argument(s)", "range x", "UUID")


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("alerts ack", "ID is missing."),
        ("alerts ack abc", "ID: must be a whole number."),
        ("alerts lst", "There is no command lst. Did you mean 'list'?"),
        ("nonsense", "There is no command nonsense."),
        ("audit-log --before x", "--before: must be a whole number."),
        ("audit-log --limit 0", "--limit: must be at least 1."),
        ("events list --limt 3", "There is no option --limt: perhaps --limit?"),
        ("events list --zzz", "There is no option --zzz."),
        ("events list --limit", "--limit needs a value."),
        ("alerts list --json=3", "--json takes no value."),
        ("deliveries show x", "delivery: must be an id, 36 characters long."),
        ("console create-user a --role king", "--role: 'king' is not one of 'viewer', 'operator'."),
        ("replay --rate x", "--rate: must be a number."),
        ("replay --rate 0", "--rate: must be at least 0.001."),
        ("replay --rate inf", "--rate: must be at most 1000000."),
        ("replay --rate nan", "--rate: must be at most 1000000."),
        ("simulate --duration inf", "--duration: must be at most 1000000000."),
        ("stats more", "This is too much: more."),
        ("sources verify github", "--request is missing."),
        ("processors pause", "PROCESSOR is missing."),
    ],
)
def test_a_wrong_call_is_one_sentence(
    command: str,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["ingest", *command.split()])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ingest: {sentence}")
    assert not [words for words in JARGON if words in line]


def numbers(app: typer.Typer) -> Iterator[tuple[str, Any]]:
    """Each option of each command that is a number with a fraction."""
    for command in app.registered_commands:
        assert command.callback is not None
        for name, hint in get_type_hints(command.callback, include_extras=True).items():
            if get_origin(hint) is Annotated and float in (
                get_args(hint)[0],
                *get_args(hint.__origin__),
            ):
                yield f"{command.callback.__module__} {name}", hint.__metadata__[0]
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from numbers(group.typer_instance)


def test_every_number_with_a_fraction_has_bounds() -> None:
    """Then what has no end is refused, and so is what is no number: it is within no bounds."""
    options = dict(numbers(main.program()))
    assert len(options) > 10
    assert [name for name, one in options.items() if None in (one.min, one.max)] == []


def test_a_group_of_commands_that_is_called_alone_lists_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ingest", "events"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 2
    assert "list" in capsys.readouterr().err
