"""What counting for Prometheus costs, in CPU time: `python -m tests.benchmarks.counting`.

One process, no server: what a receiver does for a delivery and for a commit, a worker for a job,
and a scrape of each.
"""

import sys
import time
import timeit
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from prometheus_client import generate_latest

from ingest.monitoring.endpoint import registry
from ingest.receiver.commits import Commits
from ingest.receiver.metrics import ReceiverMetrics
from ingest.store.pipeline.deliveries import Delivery
from ingest.store.pipeline.histograms import counted
from workers.counts import WorkerCounts

_REPEATS = 5
_SECONDS = 0.2
_SOURCES = 3
_PROCESSORS = 20


def microseconds(act: Callable[[], object]) -> float:
    """Return the CPU time of a call, in µs: the least of some rounds."""
    timer = timeit.Timer(act, timer=time.process_time)
    number = max(1, int(_SECONDS / max(timer.timeit(10) / 10, 1e-7)))
    return min(timer.repeat(_REPEATS, number)) / number * 1e6


def main() -> None:
    """Measure and print."""
    metrics, commits = ReceiverMetrics(), Commits({}, clock=time.monotonic)
    for number in range(_SOURCES):
        metrics.count_answer(0.004, f"source-{number}")
    tell("an answer", microseconds(lambda: metrics.count_answer(0.004, "source-1")))
    delivery = Delivery(
        id=UUID(int=1),
        source="source-1",
        received_at=datetime.now(UTC),
        key_id="0123abcd",
        headers="[]",
        body=b"",
        name=None,
        rejected=None,
    )
    for size in (1, 64, 256):
        committed = [delivery] * size
        taken = microseconds(partial(commits.succeeded, committed, 0.004))
        tell(f"a delivery, in a commit of {size}", taken / size)
    names = [f"processor-{number}" for number in range(_PROCESSORS)]
    counts = WorkerCounts(names, processes=12)
    tally = counts.take()
    for name in names:
        tally.succeeded(name, counted([0.004]), counted([0.5]))
    for size in (1, 100):
        durations = counted([0.004] * size)
        taken = microseconds(partial(tally.succeeded, "processor-1", durations, durations))
        tell(f"a job, in a batch of {size}", taken / size)
    receiver = registry("receiver", [metrics.read, commits.read])
    tell(
        f"a scrape of a receiver, {_SOURCES} sources",
        microseconds(lambda: generate_latest(receiver)),
    )
    worker = registry("worker", [counts.read])
    tell(
        f"a scrape of a worker, {_PROCESSORS} processors, in a process of its own",
        microseconds(lambda: generate_latest(worker)),
    )


def tell(what: str, taken_us: float) -> None:
    """Print a figure."""
    sys.stdout.write(f"{taken_us:10.2f} µs  {what}\n")


if __name__ == "__main__":
    main()
