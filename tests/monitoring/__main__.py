"""`python3 dev.py monitoring`: make each alert fire by its fault, on a real Prometheus, and see it
recover. Takes half an hour; with --short, a minute."""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from tests.monitoring import dashboard, drawing
from tests.monitoring.catalogue import FAULTS, PREFIX, Fault
from tests.monitoring.run import Row, Runner
from tests.monitoring.world import World
from tests.support.fleet import NotInTime


def main() -> int:
    """Exit code 0: each alert fired on its fault, and on nothing else, and recovered."""
    chosen = _arguments()
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 200, highlight=False)
    began, began_at = time.monotonic(), time.time()

    def say(text: str) -> None:
        console.print(f"{time.monotonic() - began:6.0f} s  {text}", style="dim")

    home = Path(tempfile.mkdtemp(prefix="ingest-monitoring-"))
    world = World(home)
    rows: list[Row] = []
    problems: list[str] = []
    try:
        if not chosen.only:
            say("each panel of the dashboard has data")
            problems += dashboard.problems(world)
        for faults in _groups(chosen):
            try:
                rows += Runner(world, say=say).run(faults)
            except (NotInTime, AssertionError) as error:
                problems.append(f"{', '.join(fault.what for fault in faults)}: {error}")
                console.print(problems[-1], style="red")
        if chosen.draw:
            picture = drawing.draw(world.prometheus, since=began_at, until=time.time())
            Path(chosen.draw).write_text(picture)
    finally:
        world.close()
        if chosen.keep:
            console.print(f"logs are kept in {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)
    _show(rows)
    for problem in problems:
        console.print(problem, style="red")
    if chosen.json:
        Path(chosen.json).write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 1 if problems else 0


def _groups(chosen: argparse.Namespace) -> list[list[Fault]]:
    """Return the faults that are made at once: one at a time, unless it is to be short."""
    if chosen.only:
        return [[fault] for fault in FAULTS if _is_meant(fault, chosen.only)]
    if not chosen.short:
        return [[fault] for fault in FAULTS]
    groups: dict[str, list[Fault]] = defaultdict(list)
    for fault in FAULTS:
        if fault.short is not None:
            groups[fault.short].append(fault)
    return list(groups.values())


def _is_meant(fault: Fault, text: str) -> bool:
    return text in fault.what or any(text in alert for alert in fault.alerts)


def _show(rows: Sequence[Row]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("alert", "fault"):
        table.add_column(column, overflow="fold")
    for column in ("fires after", "recovers after"):
        table.add_column(column, justify="right")
    table.add_column("fired too", overflow="fold")
    for row in rows:
        times = (f"{row.fires_s:.0f} s", f"{row.recovers_s:.0f} s")
        table.add_row(PREFIX + row.alert, row.fault, *times, ", ".join(row.company))
    Console(width=None if sys.stdout.isatty() else 180, highlight=False).print(table)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev.py monitoring", description=__doc__)
    parser.add_argument("--short", action="store_true", help="some faults, several at once")
    parser.add_argument("--only", metavar="TEXT", help="only what has this text: fault or alert")
    parser.add_argument("--json", metavar="FILE", help="write the rows there too")
    parser.add_argument("--draw", metavar="FILE", help="draw the dashboard with the run's data")
    parser.add_argument("--keep", action="store_true", help="keep the logs")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
