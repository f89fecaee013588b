"""Drain waiting events in this checkout and in another one, by turns: what did a change cost?

`python -m tests.benchmarks.checkouts ../OTHER --pairs 5`, with `.venv` ready in both. Which one
begins changes from pair to pair. On a shared machine single runs differ by some per cent: trust the
medians of several pairs, and the CPU time more than the rates.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

_HERE = Path(__file__).resolve().parents[2]
_EVENTS = 240_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One drain. Only what lasts from the start of the worker to the last event is measured."""

    rate: float
    """Events a second."""
    wal_bytes: float
    """Of write-ahead log, per event."""
    cpu_us: dict[str, float]
    """CPU time per event by kind of process, microseconds; starting the processes included."""


def main() -> int:
    """Run the pairs and print each run, then the medians of the ratios."""
    parser = argparse.ArgumentParser(prog="checkouts", description=__doc__)
    parser.add_argument("other", type=_checkout, help="the checkout to compare with")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--events", type=int, default=_EVENTS)
    given = parser.parse_args()
    pairs = []
    for number in range(given.pairs):
        order = (given.other, _HERE) if number % 2 == 0 else (_HERE, given.other)
        runs = {checkout: _run_in(checkout, given.events) for checkout in order}
        pairs.append((runs[_HERE], runs[given.other]))
        _tell(f"{number + 1}, this: ", runs[_HERE])
        _tell(f"{number + 1}, other:", runs[given.other])
    sys.stdout.write(f"this to other, medians of {given.pairs} pairs:\n")
    _tell_ratio("rate", [ours.rate / theirs.rate for ours, theirs in pairs])
    _tell_ratio("WAL", [ours.wal_bytes / theirs.wal_bytes for ours, theirs in pairs])
    for kind in pairs[0][0].cpu_us:
        ratios = [ours.cpu_us[kind] / theirs.cpu_us[kind] for ours, theirs in pairs]
        _tell_ratio(f"CPU of {kind}", ratios)
    return 0


def _checkout(text: str) -> Path:
    path = Path(text).resolve()
    if not (path / ".venv" / "bin" / "python").exists():
        raise argparse.ArgumentTypeError(f"{path} has no .venv: run `python3 dev.py up` there once")
    return path


def _run_in(checkout: Path, events: int) -> Run:
    """Measure a drain by this module's code, on the modules of `checkout`."""
    done = subprocess.run(
        # -P: the folder of this file is not to be looked for modules
        [checkout / ".venv/bin/python", "-P", __file__, str(events)],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout)},
        stdout=subprocess.PIPE,
        check=True,
    )
    return Run(**json.loads(done.stdout))


def measure(events: int) -> Run:
    """Measure a drain by the modules that this process finds, which may be of an older release."""
    from tests.benchmarks.ours import Ours
    from tests.benchmarks.world import World

    with World() as world:
        subject = Ours()
        subject.prepare(world)
        subject.fill(world, events)
        with world.connect() as connection:
            connection.execute("CHECKPOINT")
        cpu, wal = world.cpu_s(), world.value(_WAL)
        subject.start_workers(world)
        world.fleet.until(
            lambda: world.value(_SUCCEEDED) >= events,
            what="all is done",
            timeout_s=600,
            every_s=0.5,
        )
        drained = subject.drained(world)
        spent = {kind: seconds - cpu.get(kind, 0) for kind, seconds in world.cpu_s().items()}
        return Run(
            rate=drained.events / drained.seconds,
            wal_bytes=(world.value(_WAL) - wal) / events,
            cpu_us={kind: seconds / events * 1e6 for kind, seconds in spent.items()},
        )


# Few rows: to look for one that waits costs seconds, which depend on what has been vacuumed.
_SUCCEEDED = "SELECT sum(count) FROM ingest.activity WHERE what = 'succeeded'"
_WAL = "SELECT pg_current_wal_lsn() - '0/0'"


def _tell(which: str, run: Run) -> None:
    cpu = ", ".join(f"{kind} {microseconds:.1f}" for kind, microseconds in run.cpu_us.items())
    sys.stdout.write(
        f"{which} {run.rate:,.0f} events/s, {run.wal_bytes:,.0f} B of WAL; µs of CPU each: {cpu}\n"
    )
    sys.stdout.flush()


def _tell_ratio(what: str, ratios: list[float]) -> None:
    listed = ", ".join(f"{ratio:.3f}" for ratio in ratios)
    sys.stdout.write(f"  {what}: {median(ratios):.3f} ({listed})\n")


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].isdigit():
        json.dump(asdict(measure(int(sys.argv[1]))), sys.stdout)
    else:
        raise SystemExit(main())
