"""Print tables and colour in a terminal, plain lines into a pipe, JSON on request."""

import dataclasses
import json
import sys
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ingest.sources.titles import Title

STATE_COLOURS = {
    "succeeded": "green",
    "pending": "cyan",
    "running": "blue",
    "retrying": "yellow",
    "dead": "red",
    "unhandled": "magenta",
}


LEFT_OUT = (
    "Not all events that were not worked on were looked through: others that name it may be"
    " missing."
)
"""What pages say too (`parts.html`)."""
_JOINERS = "\u200c\u200d"
"""Words of some scripts, and some emoji, are spelled with them."""


def is_terminal() -> bool:
    """Return whether stdout is a terminal."""
    return sys.stdout.isatty()


def console() -> Console:
    """Return the terminal."""
    return Console(highlight=False)


def line(text: str) -> None:
    """Print one plain line."""
    sys.stdout.write(f"{text}\n")


def as_json(value: Any, *, indent: int | None = None) -> None:
    """Print one JSON document: times as ISO 8601, ids as strings. What stdout's encoding may lack
    is escaped as JSON does it."""
    has_all = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    document = json.dumps(value, default=_plain, ensure_ascii=not has_all, indent=indent)
    sys.stdout.write(f"{document}\n")


def table(
    title: str | None,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    whole: Collection[str] = (),
) -> None:
    """Print a table in a terminal, or the same cells separated by tabs into a pipe.

    A narrow terminal folds the columns, but not those named in `whole`."""
    if not is_terminal():
        if title is not None:
            line(title)
        for cells in rows:
            row(cells)
        return
    shown = Table(
        title=None if title is None else Text(title),
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        show_header=any(columns),
    )
    for column in columns:
        shown.add_column(column, overflow="fold", no_wrap=column in whole)
    for cells in rows:
        shown.add_row(*(_coloured(value) for value in cells))
    console().print(shown)


def row(cells: Iterable[object]) -> None:
    """Print cells as programs read them, separated by tabs."""
    line("\t".join(cell(value) for value in cells))


def cut(*pieces: tuple[str, str]) -> None:
    """Print pieces of text, each with its style, on one line of the terminal, cut where it ends."""
    text = Text.assemble(*((printable(piece, keep=_JOINERS), style) for piece, style in pieces))
    console().print(text, no_wrap=True, overflow="ellipsis")


def wrapped(text: str, *, indent: int = 0, style: str = "") -> None:
    """Print a text in the terminal, wrapped at its width, after `indent` columns."""
    terminal = console()
    whole = Text(printable(text, keep=f"\n{_JOINERS}"), style=style)
    for piece in whole.wrap(terminal, max(1, terminal.width - indent)):
        terminal.print(Text(" " * indent) + piece, no_wrap=True)


def body(title: str, raw: bytes, *, style: str = "") -> None:
    """Print the body of a request."""
    shown = printable(raw.decode("utf-8", errors="replace"), keep="\n")
    if is_terminal():
        console().print(Text(title, style="dim"))
        console().print(Text(shown, style=style))
    else:
        line(f"{title}\n{shown}")


def number_of(count: int, noun: str, plural: str | None = None) -> str:
    """Return a count with its noun: `1 job`, `2 jobs`, `2 deliveries`."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def ago(moment: datetime, now: datetime) -> str:
    """Return how long ago a moment was, in one unit."""
    seconds = max(0, int((now - moment).total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"


def _coloured(value: object) -> Text:
    """Return a cell as literal text: markup in it came from outside and is not interpreted."""
    text = cell(value)
    return Text(text, style=STATE_COLOURS.get(text.split(" ")[-1], ""))


def cell(value: object) -> str:
    """Return a value as a cell shows it."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return printable(str(value))


def printable(text: str, *, keep: str = "") -> str:
    """Replace characters with which text from outside could move the cursor or start a line."""
    return "".join(
        character if character.isprintable() or character in keep else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


def _plain(value: object) -> object:
    if isinstance(value, Title):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return str(value)
