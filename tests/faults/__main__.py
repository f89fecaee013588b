"""`python3 dev.py faults`: break the running system, one way after another, and show what came of
it."""

import argparse
import dataclasses
import os
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from rich.console import Console

from tests.faults import report
from tests.faults.catalogue import Fault, all_faults
from tests.faults.effects import ORDERED
from tests.faults.run import Row, Runner
from tests.faults.soak import Soak
from tests.faults.world import World

_SCHEDULE_S = 300.0
_SHORT_SCHEDULE_S = 30.0


def main() -> int:
    """Exit code 0: nothing was lost and nothing took effect twice."""
    given = _arguments()
    seed = secrets.randbelow(10**6) if given.seed is None else given.seed
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 200, highlight=False)
    console.print(f"seed {seed}, {given.rate:g} events a second")
    if given.ordered:
        os.environ[ORDERED] = "1"
    home = Path(tempfile.mkdtemp(prefix="ingest-faults-"))
    world = World(home)
    try:
        rows = _run(world, given, Random(seed), console)
    finally:
        world.close()
        if given.keep:
            console.print(f"logs and journals are kept in {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)
    report.show(rows, Console(width=None if sys.stdout.isatty() else 220))
    if given.json:
        Path(given.json).write_text(report.as_json(rows))
    if given.markdown:
        Path(given.markdown).write_text(report.markdown(rows) + "\n")
    return 0 if all(row.is_clean for row in rows) else 1


def _run(world: World, given: argparse.Namespace, random: Random, console: Console) -> list[Row]:
    began = time.monotonic()

    def say(text: str) -> None:
        console.print(f"{time.monotonic() - began:6.0f} s  {text}", style="dim")

    runner = Runner(world, rate=given.rate, random=random, say=say)
    rows: list[Row] = []
    possible = [fault for fault in _chosen(given) if _is_possible(fault, world, console)]
    if given.soak:
        return [_soaked(world, runner, possible, given.soak, console)]
    for fault in possible:
        repeats = 1 if given.short or given.once else fault.repeats
        rows.append(runner.alone(fault, repeats=repeats))
        if not rows[-1].is_clean:
            console.print(f"{fault.name}: {rows[-1]}", style="red")
    if not given.only:
        duration_s = given.schedule or (_SHORT_SCHEDULE_S if given.short else _SCHEDULE_S)
        together = [fault for fault in possible if not fault.alone]
        rows.append(runner.schedule(together, duration_s=duration_s))
    return rows


def _soaked(
    world: World, runner: Runner, faults: list[Fault], minutes: float, console: Console
) -> Row:
    together = [fault for fault in faults if not fault.alone]
    row, wrong = Soak(world, runner, console).run(together, minutes=minutes)
    return dataclasses.replace(row, problems=(*row.problems, *wrong))


def _chosen(given: argparse.Namespace) -> list[Fault]:
    faults = all_faults(short=given.short)
    return [fault for fault in faults if not given.only or given.only in fault.name]


def _is_possible(fault: Fault, world: World, console: Console) -> bool:
    """Whether it can be tried here. In CI everything must be."""
    why = fault.missing(world)
    if why is None:
        return True
    if os.environ.get("CI"):
        raise SystemExit(f"{fault.name}: {why}")
    console.print(f"left out: {fault.name} ({why})", style="yellow")
    return False


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev.py faults", description=__doc__)
    parser.add_argument("--short", action="store_true", help="25 of the faults, each once")
    parser.add_argument("--once", action="store_true", help="all of the faults, each once")
    parser.add_argument("--only", metavar="TEXT", help="only faults whose name has this text")
    parser.add_argument(
        "--ordered",
        action="store_true",
        help="with a processor that has an order and one that has a limit; they take a machine of"
        " their own at this rate",
    )
    parser.add_argument("--rate", type=float, default=300, help="events a second (default: 300)")
    parser.add_argument("--seed", type=int, help="repeat a run's random choices")
    parser.add_argument("--schedule", type=float, metavar="S", help="seconds of random faults")
    parser.add_argument("--soak", type=float, metavar="MIN", help="minutes of a soak, alone")
    parser.add_argument("--json", metavar="FILE", help="write the rows there too")
    parser.add_argument("--markdown", metavar="FILE", help="write the table there too")
    parser.add_argument("--keep", action="store_true", help="keep logs and journals")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
