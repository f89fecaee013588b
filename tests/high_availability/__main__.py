"""`python3 dev.py ha`: lose the primary of a PostgreSQL with a synchronous standby, one way after
another, under load; then once with an asynchronous standby, which must lose something."""

import argparse
import fcntl
import os
import secrets
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from rich import box
from rich.console import Console
from rich.table import Table

from ingest.local.errors import EmbeddedError
from tests.faults.run import Row, Runner
from tests.high_availability.network import NotHere, run
from tests.high_availability.strikes import Strike, all_strikes, cut_then_killed
from tests.high_availability.world import ClusterWorld
from tests.support.servers import debian

_COLUMNS = (
    *("what happened", "times", "answered 200", "lost", "twice"),
    *("without a 200, median", "worst", "without an effect, median", "worst"),
)
_LOCK = Path(tempfile.gettempdir()) / "ingest-ha.lock"


def main() -> int:
    """Exit code 0: a synchronous standby lost nothing, and the asynchronous one did."""
    given = _arguments()
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 160, highlight=False)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        _check_tools()
        with _alone():
            return _show_all(given, console)
    except (NotHere, EmbeddedError) as error:
        raise SystemExit(f"dev.py ha: {error}") from error
    except KeyboardInterrupt:
        return 130


def _show_all(given: argparse.Namespace, console: Console) -> int:
    seed = secrets.randbelow(10**6) if given.seed is None else given.seed
    patroni = run("patroni", "--version").strip()
    console.print(f"seed {seed}, {given.rate:g} events a second, {patroni}")
    rounds = 1 if given.short else given.rounds
    chosen = [strike for strike in all_strikes(rounds) if given.only in strike.name]
    results = _run(chosen, given, Random(seed), console, synchronous=True)
    control = [Strike(*cut_then_killed())]
    lossy = _run(control, given, Random(seed), console, synchronous=False)
    Console(width=None if sys.stdout.isatty() else 160).print(_table(results, lossy))
    for _, row in results:
        for problem in row.problems:
            console.print(f"{row.name}: {problem}", style="red")
    if not any(row.verdict.lost for _, row in lossy):
        console.print("The control lost nothing: the suite would not notice a loss.", style="red")
        return 1
    return 0 if all(row.is_clean for _, row in results) else 1


Result = tuple[Strike, Row]


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

    rows: list[Row] = []
    with _world(given, console, synchronous=synchronous) as world:
        runner = Runner(world, rate=given.rate, random=random, say=say)
        for strike in strikes:
            rows.append(runner.alone(strike.fault(), repeats=strike.times))
            say(f"{strike.name}: {rows[-1].verdict.lost} lost, {strike.gaps}")
        say(f"{world.failovers()} failovers of the primary")
    return list(zip(strikes, rows, strict=True))


@contextmanager
def _world(
    given: argparse.Namespace, console: Console, *, synchronous: bool
) -> Iterator[ClusterWorld]:
    """Make the machines, with a folder; whatever happens, nothing of them stays."""
    home = Path(tempfile.mkdtemp(prefix="ingest-ha-"))
    try:
        world = ClusterWorld(home, synchronous=synchronous)
        try:
            yield world
        finally:
            world.close()
    finally:
        if given.keep:
            console.print(f"logs and journals are kept in {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)


def _table(results: list[Result], lossy: list[Result]) -> Table:
    table = Table(box=box.MARKDOWN, pad_edge=False)
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column == _COLUMNS[0] else "right")
    for prefix, (strike, row) in (
        *(("", result) for result in results),
        *(("asynchronous, ", result) for result in lossy),
    ):
        verdict, gaps = row.verdict, strike.gaps
        counts = (row.strikes, verdict.acknowledged, verdict.lost, verdict.twice)
        table.add_row(
            prefix + strike.name,
            *(f"{count:,}" for count in counts),
            *_median_and_worst(gaps.answers_s),
            *_median_and_worst(gaps.effects_s),
        )
    return table


def _median_and_worst(seconds: list[float]) -> tuple[str, str]:
    if not seconds:
        return ("-", "-")
    return (f"{statistics.median(seconds):.1f} s", f"{max(seconds):.1f} s")


@contextmanager
def _alone() -> Iterator[None]:
    """Hold the names of the machines: a second run would unmake those of the first."""
    with _LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise NotHere("another run has the network; wait until it has ended.") from error
        yield


def _check_tools() -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        raise NotHere("only root may make network namespaces, and only on Linux.")
    wanted = ("ip", "bridge", "setpriv", "etcd", "patroni", "redis-server", "redis-sentinel")
    missing = [name for name in wanted if shutil.which(name) is None]
    if missing or not debian.POSTGRES.exists():
        raise NotHere(
            f"{', '.join(missing) or 'PostgreSQL 15'} is not installed: apt-get install"
            " postgresql-15 patroni etcd-server redis-server redis-sentinel iproute2"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev.py ha", description=__doc__)
    parser.add_argument("--short", action="store_true", help="each failure once")
    parser.add_argument(
        "--rounds", type=int, default=3, metavar="N", help="kill, freeze, cut off N times each"
    )
    parser.add_argument("--only", metavar="TEXT", default="", help="only those with this text")
    parser.add_argument("--rate", type=float, default=100, help="events a second (default: 100)")
    parser.add_argument("--seed", type=int, help="repeat a run's random choices")
    parser.add_argument("--keep", action="store_true", help="keep logs and journals")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
