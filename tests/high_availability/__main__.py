"""`python3 dev.py ha`: lose the primary of a PostgreSQL with a synchronous standby, one way after
another, under load; then once with an asynchronous standby, which must lose something."""

import argparse
import os
import secrets
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from rich import box
from rich.console import Console
from rich.table import Table

from tests.faults.run import Row, Runner
from tests.high_availability.strikes import Strike, all_strikes, cut_then_killed
from tests.high_availability.world import ClusterWorld
from tests.support.servers import debian

_COLUMNS = (
    *("what happened", "times", "answered 200", "lost", "twice"),
    *("without a 200, median", "worst", "all processed after"),
)


def main() -> int:
    """Exit code 0: a synchronous standby lost nothing, and the asynchronous one did."""
    given = _arguments()
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 160, highlight=False)
    _check_tools()
    seed = secrets.randbelow(10**6) if given.seed is None else given.seed
    console.print(f"seed {seed}, {given.rate:g} events a second")
    chosen = [strike for strike in all_strikes(short=given.short) if given.only in strike.name]
    results = _run(chosen, given, Random(seed), console, synchronous=True)
    control = [Strike(*cut_then_killed())]
    lossy = _run(control, given, Random(seed), console, synchronous=False)
    named = [(f"asynchronous, {name}", row, outages_s) for name, row, outages_s in lossy]
    table = _table([*results, *named])
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    for row in (row for _, row, _ in (*results, *lossy)):
        for problem in row.problems:
            console.print(f"{row.name}: {problem}", style="red")
    is_safe = all(row.is_clean for _, row, _ in results)
    if not any(row.verdict.lost for _, row, _ in lossy):
        console.print("The control lost nothing: the suite would not notice a loss.", style="red")
        return 1
    return 0 if is_safe else 1


Result = tuple[str, Row, list[float]]


def _run(
    strikes: list[Strike],
    given: argparse.Namespace,
    random: Random,
    console: Console,
    *,
    synchronous: bool,
) -> list[Result]:
    began = time.monotonic()

    def say(text: str) -> None:
        console.print(f"{time.monotonic() - began:6.0f} s  {text}", style="dim")

    home = Path(tempfile.mkdtemp(prefix="ingest-ha-"))
    world = ClusterWorld(home, synchronous=synchronous)
    try:
        runner = Runner(world, rate=given.rate, random=random, say=say)
        rows: list[Row] = []
        for strike in strikes:
            rows.append(runner.alone(strike.fault(), repeats=strike.times))
            verdict, outages_s = rows[-1].verdict, [round(s, 1) for s in strike.outages_s]
            say(f"{strike.name}: {verdict.lost} lost, without a 200 for {outages_s} s")
    finally:
        world.close()
        if given.keep:
            console.print(f"logs and journals are kept in {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)
    return [(strike.name, row, strike.outages_s) for strike, row in zip(strikes, rows, strict=True)]


def _table(results: list[Result]) -> Table:
    table = Table(box=box.MARKDOWN, pad_edge=False)
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column == _COLUMNS[0] else "right")
    for name, row, outages_s in results:
        verdict = row.verdict
        counts = (row.strikes, verdict.acknowledged, verdict.lost, verdict.twice)
        times = (statistics.median(outages_s), max(outages_s)) if outages_s else (None, None)
        table.add_row(
            name,
            *(f"{count:,}" for count in counts),
            *("-" if s is None else f"{s:.1f} s" for s in (*times, row.recovery_s)),
        )
    return table


def _check_tools() -> None:
    if os.geteuid() != 0:
        raise SystemExit("dev.py ha: only root may make network namespaces.")
    wanted = ("ip", "bridge", "setpriv", "etcd", "patroni", "redis-server", "redis-sentinel")
    missing = [name for name in wanted if shutil.which(name) is None]
    if missing or not debian.POSTGRES.exists():
        raise SystemExit(
            f"dev.py ha: {', '.join(missing) or 'PostgreSQL 15'} is not installed: apt-get install"
            " postgresql-15 patroni etcd-server redis-server redis-sentinel iproute2"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev.py ha", description=__doc__)
    parser.add_argument("--short", action="store_true", help="each failure once")
    parser.add_argument("--only", metavar="TEXT", default="", help="only those with this text")
    parser.add_argument("--rate", type=float, default=100, help="events a second (default: 100)")
    parser.add_argument("--seed", type=int, help="repeat a run's random choices")
    parser.add_argument("--keep", action="store_true", help="keep logs and journals")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
