"""A command that is called in a way that it does not take says so in one plain sentence."""

import sys

import pytest

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


def test_a_group_of_commands_that_is_called_alone_lists_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ingest", "events"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 2
    assert "list" in capsys.readouterr().err
