"""`python3 dev.py model`: visit every state that the protocol can come to, then break its rules."""

import argparse
import sys
import time

from rich import box
from rich.console import Console
from rich.table import Table

from tests.model.breakages import BREAKABLE, without
from tests.model.explore import Explored, explore
from tests.model.protocol import FAULTS, start

SIZES = ((1, len(FAULTS)), (2, 4))
SHORT = ((2, 3),)
"""How many events there are, and how many of the faults happen in one run."""


def main() -> int:
    """Exit code 0: the protocol is right, and each of its rules is needed."""
    parser = argparse.ArgumentParser(prog="dev.py model", description=__doc__)
    parser.add_argument("--short", action="store_true", help="fewer faults in a run: half a minute")
    sizes = SHORT if parser.parse_args().short else SIZES
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    explored = [_shown(console, events, faults) for events, faults in sizes]
    broken = {rule: without(rule) for rule in BREAKABLE}
    _show_broken(console, broken)
    is_right = all(visited.wrong is None for visited in explored)
    return 0 if is_right and all(found.wrong for found in broken.values()) else 1


def _shown(console: Console, events: int, faults: int) -> Explored:
    began = time.perf_counter()
    explored = explore(start(events=events, faults=faults))
    took_s = time.perf_counter() - began
    what = f"{events} event{'s' * (events > 1)}, 2 workers, any {faults} of {len(FAULTS)} faults"
    console.print(
        f"{what}: {explored.states:,} states, {explored.steps:,} steps, {took_s:.0f} s:"
        f" {explored.wrong or 'nothing wrong'}"
    )
    for number, step in enumerate(explored.way, start=1):
        console.print(f"  {number}. {step}")
    return explored


def _show_broken(console: Console, broken: dict[str, Explored]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("the rule that is broken", "what follows", "after"):
        table.add_column(column, overflow="fold")
    for name, explored in broken.items():
        way = " → ".join(step.replace(" (1)", "") for step in explored.way)
        table.add_row(name.replace("_", " "), explored.wrong or "nothing", way)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
