"""The table."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich import box
from rich.console import Console
from rich.table import Table

from tests.faults.run import Row

COLUMNS = (
    "what was broken",
    "times",
    "answered 200",
    "processed",
    "and in batches",
    "in order by key",
    "histories",
    "lost",
    "twice",
    "dead",
    "other answers",
    "outside repeats",
    "silence",
    "recovered in",
    "bounded by",
)


def show(rows: Sequence[Row], console: Console) -> None:
    """For a person."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, overflow="fold", justify="left" if "b" in column[:2] else "right")
    for row in rows:
        table.add_row(*_cells(row), style=None if row.is_clean else "red")
    console.print(table)
    for row in rows:
        for problem in _problems(row):
            console.print(f"{row.name}: {problem}", style="red", highlight=False)


def markdown(rows: Sequence[Row]) -> str:
    """For the README."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *map(_cells, rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def as_json(rows: Sequence[Row]) -> str:
    """For a program."""
    return json.dumps([asdict(row) for row in rows], indent=1)


def _cells(row: Row) -> list[str]:
    found = row.verdict
    others = {name: count for name, count in sorted(row.answers.items()) if name != "200"}
    return [
        row.name,
        str(row.strikes),
        f"{found.acknowledged:,}",
        f"{found.processed:,}",
        f"{row.batched:,}",
        f"{row.in_order:,}",
        str(row.histories),
        str(found.lost),
        str(found.twice),
        str(found.dead),
        ", ".join(f"{count:,} x {name}" for name, count in others.items()) or "-",
        f"{found.repeats} of {found.outside:,}",
        f"{row.silence_s:.1f} s",
        "-" if row.recovery_s is None else f"{row.recovery_s:.1f} s",
        row.bound,
    ]


def _problems(row: Row) -> list[str]:
    wrong = list(row.problems)
    if row.verdict.wrong_rows:
        wrong.append(f"{row.verdict.wrong_rows} rows of the read model are wrong")
    return wrong
