"""The protocol of the benchmark's systems, after its CONTRIBUTING_ADAPTERS.md.

A system is a process that gets its settings from the environment, inserts jobs, works on them, and
prints a line of JSON for each measurement. The harness kills it, or sends it SIGTERM at the end.
"""

import asyncio
import json
import math
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

_WINDOW_S = 30.0
_KEPT = 32_768
"""Latencies that are kept at most, as by the harness's own systems."""
_DEPTH_EVERY_S = 0.2
_IDLE_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the harness asks for."""

    database_url: str
    instance: int
    rate: float
    """Jobs a second, where no target depth is asked for."""
    rate_file: Path | None
    """Holds the rate as it is now: a phase of high load changes it."""
    target_depth: int | None
    """Jobs that are to wait at any time; None: jobs come at the rate."""
    batch_most: int
    batch_s: float
    payload_bytes: int
    workers: int
    work_s: float
    sample_every_s: int

    def padding(self, spelled: str) -> str:
        """Return what is missing from `spelled`, a job as JSON without its padding."""
        return "x" * max(0, self.payload_bytes - len(spelled))

    def rate_now(self) -> float:
        """Return the jobs a second that are asked for at this moment."""
        if self.rate_file is not None:
            with suppress(OSError, ValueError):  # it is being written
                return float(self.rate_file.read_text())
        return self.rate


def settings(environment: Mapping[str, str]) -> Settings:
    """Read the settings from the environment of the process."""
    number = {name: int(float(value)) for name, value in environment.items() if name in _NUMBERS}
    wants_depth = environment.get("PRODUCER_MODE") == "depth-target"
    rate_file = environment.get("PRODUCER_RATE_CONTROL_FILE")
    return Settings(
        database_url=environment["DATABASE_URL"],
        instance=number.get("BENCH_INSTANCE_ID", 0),
        rate=number.get("PRODUCER_RATE", 800),
        rate_file=Path(rate_file) if rate_file else None,
        target_depth=number.get("TARGET_DEPTH", 1_000) if wants_depth else None,
        batch_most=max(1, number.get("PRODUCER_BATCH_MAX", 128)),
        batch_s=max(1, number.get("PRODUCER_BATCH_MS", 25)) / 1000,
        payload_bytes=number.get("JOB_PAYLOAD_BYTES", 256),
        workers=number.get("WORKER_COUNT", 32),
        work_s=number.get("JOB_WORK_MS", 1) / 1000,
        sample_every_s=number.get("SAMPLE_EVERY_S", 5),
    )


_NUMBERS = frozenset(
    {
        *("BENCH_INSTANCE_ID", "JOB_PAYLOAD_BYTES", "JOB_WORK_MS", "PRODUCER_BATCH_MAX"),
        *("PRODUCER_BATCH_MS", "PRODUCER_RATE", "SAMPLE_EVERY_S", "TARGET_DEPTH", "WORKER_COUNT"),
    }
)


@dataclass(slots=True)
class Counts:
    """What has happened since the start."""

    inserted: int = 0
    done: int = 0
    late_ms: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_KEPT))
    """When jobs ended (monotonic seconds), and how long after their insertion they had begun."""

    def ended(self, late_s: float) -> None:
        """Note that a job has ended, which began so long after it was inserted."""
        self.done += 1
        self.late_ms.append((time.monotonic(), max(0.0, late_s * 1000)))

    def percentiles(self, *shares: float) -> list[float]:
        """Return how late jobs of the last half minute began, in ms; 0 if there were none."""
        since = time.monotonic() - _WINDOW_S
        late = sorted(ms for at, ms in self.late_ms if at >= since)
        if not late:
            return [0.0 for _ in shares]
        return [late[min(len(late), math.ceil(share * len(late))) - 1] for share in shares]


class System(Protocol):
    """A job queue, as an application uses it."""

    name: str
    version: str
    tables: tuple[str, ...]
    """Those that are written for each job, the hottest first. The harness watches their size and
    their dead rows; `open` may add to them."""

    async def open(self, settings: Settings, counts: Counts) -> None:
        """Make the schema, and start to work on jobs. Each job counts itself."""

    async def insert(self, count: int) -> int:
        """Insert so many jobs; return how many were taken."""

    async def depth(self) -> int:
        """Return how many jobs wait."""

    async def close(self) -> None:
        """End within seconds."""


def run(system: System) -> None:
    """Be a system of the benchmark, until SIGTERM."""
    asyncio.run(_run(system, settings(os.environ)))


async def _run(system: System, wanted: Settings) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    await serve(system, wanted, ended)


async def serve(system: System, wanted: Settings, ended: asyncio.Event) -> None:
    """Insert, work and measure until `ended` is set.

    Raises:
        Exception: what inserts, looks or measures has failed; the system is closed all the same.
    """
    counts = Counts()
    await system.open(wanted, counts)
    _print(
        wanted,
        {
            "kind": "descriptor",
            "system": system.name,
            "event_tables": list(system.tables),
            "extensions": [],
            "version": system.version,
            "schema_version": system.version,
            "db_name": wanted.database_url.rpartition("/")[2].partition("?")[0],
            "started_at": _now(),
        },
    )
    depth = _Depth(system)
    tasks = [
        asyncio.create_task(depth.watch()),
        asyncio.create_task(_produce(system, wanted, counts, depth)),
        asyncio.create_task(_sample(system, wanted, counts, depth)),
    ]
    told_to_end = asyncio.create_task(ended.wait())
    await asyncio.wait([told_to_end, *tasks], return_when=asyncio.FIRST_COMPLETED)
    failed = [task for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await system.close()
    for task in failed:
        task.result()


class _Depth:
    """How many jobs wait, asked for a few times a second."""

    def __init__(self, system: System) -> None:
        self._system = system
        self.jobs = 0

    async def watch(self) -> None:
        while True:
            try:
                self.jobs = await self._system.depth()
            except Exception as error:  # the database is away: that is what is tried
                _complain("depth", error)
            await asyncio.sleep(_DEPTH_EVERY_S)


async def _produce(system: System, wanted: Settings, counts: Counts, depth: _Depth) -> None:
    """Insert jobs at the rate, credited by the time that has really passed; or up to the depth."""
    credit, since = 0.0, time.monotonic()
    while True:
        if wanted.target_depth is not None:
            count = min(wanted.batch_most, wanted.target_depth - depth.jobs)
            depth.jobs += max(0, count)  # until it is asked for again
            if count <= 0:
                await asyncio.sleep(_IDLE_S)
                continue
        else:
            await asyncio.sleep(max(0.0, since + wanted.batch_s - time.monotonic()))
            now = time.monotonic()
            credit += wanted.rate_now() * (now - since)
            since = now
            count = min(wanted.batch_most, int(credit))
            if count <= 0:
                continue
            credit -= count
        try:
            counts.inserted += await system.insert(count)
        except Exception as error:
            _complain("insert", error)
            await asyncio.sleep(_IDLE_S)


async def _sample(system: System, wanted: Settings, counts: Counts, depth: _Depth) -> None:
    """Print the measurements, at whole multiples of the period."""
    every = wanted.sample_every_s
    await _next_multiple(every)
    inserted, done, at = counts.inserted, counts.done, time.monotonic()
    while True:
        await _next_multiple(every)
        now = time.monotonic()
        p50, p95, p99 = counts.percentiles(0.50, 0.95, 0.99)
        metrics: dict[str, tuple[float, float]] = {
            "claim_p50_ms": (p50, _WINDOW_S),
            "claim_p95_ms": (p95, _WINDOW_S),
            "claim_p99_ms": (p99, _WINDOW_S),
            "enqueue_rate": ((counts.inserted - inserted) / (now - at), every),
            "completion_rate": ((counts.done - done) / (now - at), every),
        }
        if wanted.instance == 0:  # what is one for all instances
            metrics["queue_depth"] = (depth.jobs, 0)
            metrics["producer_target_rate"] = (
                0.0 if wanted.target_depth else wanted.rate_now(),
                0,
            )
        about = {"t": _now(), "system": system.name, "kind": "adapter", "subject_kind": "adapter"}
        _print(
            wanted,
            *(
                about | {"subject": "", "metric": metric, "value": value, "window_s": window_s}
                for metric, (value, window_s) in metrics.items()
            ),
        )
        inserted, done, at = counts.inserted, counts.done, now


async def _next_multiple(period_s: int) -> None:
    """Sleep until the clock is at the next multiple of the period; not at one that is so near that
    the last sleep, which may end a moment early, was for it."""
    left_s = period_s - time.time() % period_s
    await asyncio.sleep(left_s if left_s > period_s / 10 else left_s + period_s)


def _print(wanted: Settings, *records: Mapping[str, object]) -> None:
    """Print records as lines, at once."""
    own = {"instance_id": wanted.instance}
    sys.stdout.write("".join(json.dumps({**record, **own}) + "\n" for record in records))
    sys.stdout.flush()


def _complain(what: str, error: Exception) -> None:
    sys.stderr.write(f"{what}: {type(error).__name__}: {error}\n")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
