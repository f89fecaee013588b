"""What a person sees in a terminal."""

import io

import pytest
from rich.console import Console

from ingest.cli import output

UUID = "01a20760-e093-7aa9-8acc-70ead3b4ad03"


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A terminal of 80 columns."""
    seen = io.StringIO()
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    monkeypatch.setattr(output, "console", lambda: Console(file=seen, width=80, highlight=False))
    return seen


@pytest.mark.parametrize("cell", [r"x\[/b]", "[red]gone[/red]", r"bad pattern \[/a-z]", "[/]"])
def test_what_looks_like_markup_is_shown_as_it_is(screen: io.StringIO, cell: str) -> None:
    output.table(None, ["error"], [(cell,)])
    assert cell in screen.getvalue()


def test_an_id_that_is_to_be_copied_is_never_folded(screen: io.StringIO) -> None:
    row = (UUID, "contact.updated:#" + "9f" * 32, "succeeded", "10 s ago", 1)
    columns = ["id", "event id", "state", "received", "deliveries"]
    output.table(None, columns, [row], whole=("id", "state", "received", "deliveries"))
    (line,) = [line for line in screen.getvalue().splitlines() if UUID in line]
    assert "contact" in line
    assert "succeeded" in line


def test_control_characters_from_outside_do_not_reach_the_terminal(screen: io.StringIO) -> None:
    output.table(None, ["a"], [("\x1b[2Jcleared",)])
    assert "\x1b[2J" not in screen.getvalue()
