"""`python3 dev.py bench`: our pipeline beside what a user would write or pick instead.

Each part runs every subject in turn, then all of them again in the opposite order, each on an empty
PostgreSQL (fsync on) and Redis of its own. Rates depend on the machine; the ratios are what counts.
"""

import argparse
import dataclasses
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.benchmarks import parts, report
from tests.benchmarks.parts import Size

PARTS: dict[str, Callable[[Size], Iterator[Any]]] = {
    "answers": parts.answers,
    "pgbench": parts.pgbench,
    "latency": parts.latency,
    "drain": parts.drain,
    "own": parts.own,
    "lag": parts.lag,
    "sustained": parts.sustained,
    "endurance": parts.endurance,
    "price": parts.price,
    "idle": parts.idle,
    "plans": parts.plans,
    "parked": parts.parked,
    "order": parts.order,
    "limits": parts.limits,
    "gaps": parts.gaps,
    "scaling": parts.scaling,
    "cores": parts.cores,
    "stored": parts.stored,
    "console": parts.console,
    "retention": parts.retention,
}


def main() -> int:
    """Run the parts that are asked for, print their tables."""
    given = _arguments()
    size = parts.SHORT if given.short else parts.FULL
    if given.stored is not None:
        size = dataclasses.replace(size, stored=given.stored)
    size = dataclasses.replace(size, home=given.home)
    console = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 160)
    began = time.monotonic()
    found: dict[str, list[Any]] = {}
    for name in given.only or PARTS:
        found[name] = []
        for row in PARTS[name](size):
            found[name].append(row)
            console.print(f"{time.monotonic() - began:6.0f} s  {report.line(row)}", style="dim")
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    text = report.markdown(found, machine)
    sys.stdout.write(text)
    for path, content in (
        (given.markdown, text),
        (given.json, json.dumps({k: list(map(report.plain, v)) for k, v in found.items()})),
        (given.plot, report.plot(found)),
    ):
        if path:
            Path(path).write_text(content)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev.py bench", description=__doc__)
    parser.add_argument("--short", action="store_true", help="small numbers: does it still run?")
    parser.add_argument("--only", type=_parts, metavar="PART,…", help=", ".join(PARTS))
    parser.add_argument("--stored", type=int, metavar="N", help="events that are stored already")
    parser.add_argument(
        "--home",
        type=lambda text: Path(text).resolve(),
        metavar="DIR",
        help="console: keep what it stores there (ten million: 27 GB), and use it again",
    )
    parser.add_argument("--json", metavar="FILE", help="write every run there too")
    parser.add_argument("--markdown", metavar="FILE", help="write the tables there too")
    parser.add_argument("--plot", metavar="FILE", help="draw the rates there, as SVG")
    return parser.parse_args()


def _parts(text: str) -> Sequence[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        raise argparse.ArgumentTypeError(f"no such part: {', '.join(unknown)}")
    return names


if __name__ == "__main__":
    raise SystemExit(main())
