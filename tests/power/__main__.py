"""`python3 dev.py power`: cut the power of PostgreSQL's disk under load, again and again.

An answer of 200 must have waited for the disk. A killed process does not show that: the kernel
keeps what it wrote.
"""

import argparse
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from ctypes.util import find_library
from dataclasses import asdict
from pathlib import Path
from random import Random

from rich import box
from rich.console import Console
from rich.table import Table

from tests.power.controls import CONTROLS
from tests.power.run import Cuts, Row, Subject

_CUTS = 100
_SHORT = 4
_UNTIL_LOST = 10
"""A control must lose something within so many cuts."""
_COLUMNS = (
    "what",
    "cuts",
    "answered 200",
    "a second",
    "missing",
    "first at cut",
    "sectors lost",
    "names lost",
    "recovery",
)


def main() -> int:
    """Exit code 0: nothing was lost, and each control lost something."""
    given = _arguments()
    if os.geteuid() != 0 or not Path("/dev/fuse").exists() or find_library("fuse3") is None:
        raise SystemExit("dev.py power needs root, /dev/fuse and libfuse3 (Debian: fuse3).")
    seed = secrets.randbelow(10**6) if given.seed is None else given.seed
    for ending in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C, so that nothing is left behind
        signal.signal(ending, signal.default_int_handler)
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 200, highlight=False)
    console.print(f"seed {seed}, {given.rate:g} events a second")
    began = time.monotonic()

    def say(text: str) -> None:
        console.print(f"{time.monotonic() - began:6.0f} s  {text}", style="dim")

    home = Path(tempfile.mkdtemp(prefix="ingest-power-"))
    home.chmod(0o755)  # PostgreSQL runs as another user
    try:
        rows = list(_rows(Cuts(home, rate=given.rate, random=Random(seed), say=say), given))
    finally:
        if given.keep:
            console.print(f"logs and journals are kept in {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)
    _show(rows, Console(width=None if sys.stdout.isatty() else 220))
    if given.json:
        Path(given.json).write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return 0 if rows and all(row.is_as_it_must_be for row in rows) else 1


def _rows(cuts: Cuts, given: argparse.Namespace) -> Iterator[Row]:
    count = given.cuts or (_SHORT if given.short else _CUTS)
    for subject in _subjects(count, short=given.short):
        if given.only is None or given.only in subject.name:
            yield cuts.run(subject)


def _subjects(count: int, *, short: bool) -> Iterator[Subject]:
    yield Subject(name="as it is", cuts=count)
    if not short:
        yield Subject(
            name="synchronous_commit=off in PostgreSQL's configuration",
            cuts=_UNTIL_LOST,
            settings=("synchronous_commit=off",),
        )
        yield Subject(name="on a disk whose syncs take 20 ms", cuts=_UNTIL_LOST, sync_s=0.02)
    for control in CONTROLS:
        yield Subject(name=f"control: {control}", cuts=_UNTIL_LOST, control=control)


def _show(rows: list[Row], console: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        table.add_row(
            row.name,
            str(row.cuts),
            f"{row.answered:,}",
            f"{row.rate:.0f}",
            f"{row.missing:,}",
            "-" if row.first_loss is None else str(row.first_loss),
            f"{row.sectors:,}",
            f"{row.names:,}",
            f"{row.recovery_s:.1f} s",
            style=None if row.is_as_it_must_be else "red",
        )
    console.print(table)
    for row in rows:
        for problem in row.problems:
            console.print(f"{row.name}: {problem}", highlight=False)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev.py power", description=__doc__)
    parser.add_argument("--short", action="store_true", help=f"{_SHORT} cuts, and the controls")
    parser.add_argument("--cuts", type=int, metavar="N", help=f"how many (default: {_CUTS})")
    parser.add_argument("--only", metavar="TEXT", help="only what has this text in its name")
    parser.add_argument("--rate", type=float, default=400, help="events a second (default: 400)")
    parser.add_argument("--seed", type=int, help="repeat a run's random choices")
    parser.add_argument("--json", metavar="FILE", help="write the rows there too")
    parser.add_argument("--keep", action="store_true", help="keep logs and journals")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
