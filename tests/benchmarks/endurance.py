"""Minutes at a steady rate, second by second: answers, lag, memory, and what else ran meanwhile."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.benchmarks.ours import Ours
from tests.benchmarks.sustained import Lease, Line
from tests.benchmarks.world import World

SETTINGS = ("log_checkpoints=on", "log_autovacuum_min_duration=0")
"""Of the PostgreSQL whose log tells what else ran."""
ROOM = ("max_wal_size=20GB", "min_wal_size=20GB")
"""Room for the log of 3,400 events a second (docs/capacity.md), so that checkpoints come by the
clock, every five minutes. By default one begins with each half gigabyte or so, about once a minute.
Files of the log are kept, and used again.
"""
_LOG_FILE_BYTES = 16 * 2**20
_LOG_OF_AN_EVENT = 4_000
"""Bytes: 3.4 kB were measured, and each file may end unused."""
_SHOWN = 10
_CONNECTIONS = 256
"""With 64, answers that take 13 ms on the average allow no more than 4,900 a second."""
_LOGGED = re.compile(
    r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+) UTC \[\d+\] LOG:  "
    r'(?:(checkpoint starting)|(checkpoint complete)|automatic (\w+) of table "[^"]*\.(\w+)")'
)
_ELAPSED = re.compile(r"elapsed: ([\d.]+) s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Second:
    """A second of a run."""

    at: int
    """How many came before it."""
    p99_ms: float
    worst_ms: float
    lag_s: float
    """Age of the oldest event that was not worked on, at most."""
    beside: tuple[str, ...]
    """What PostgreSQL did beside its statements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endurance:
    """A run at one rate."""

    settings: tuple[str, ...]
    """Of PostgreSQL, beside its defaults."""
    share: float
    """Of the highest rate of this part."""
    of_verify_only: float
    """The rate, as a share of that of *verify only*."""
    held: Lease
    memory_mib: dict[str, tuple[float, float]]
    """By kind of process, before and after."""
    waiting_mib: tuple[float, float]
    """The table of what is not admitted yet, before and after."""
    worst: tuple[Second, ...]
    """The seconds with the slowest answers, the slowest first."""


def measure(
    world: World,
    ours: Ours,
    *,
    settings: tuple[str, ...],
    verify_only: float,
    rate: float,
    runs: Sequence[tuple[float, float]],
) -> Iterator[Endurance]:
    """Offer shares of `rate` for so many seconds each; `settings` are those of the world, and
    `verify_only` is the rate of *verify only* in this run of the benchmark."""
    line = Line(world, ours)
    if settings == ROOM:
        events = sum(rate * share * seconds for share, seconds in runs)
        _make_log_files(world, int(events * _LOG_OF_AN_EVENT / _LOG_FILE_BYTES))
    line.offer(rate / 3, 5)  # processes have loaded what they need, and memory is what it will be
    line.settle()
    for share, seconds in runs:
        memory, waiting = world.memory_mib(), _waiting_mib(world)
        held = line.offer(rate * share, seconds, connections=_CONNECTIONS, is_long=True)
        line.settle()
        after = world.memory_mib()
        yield Endurance(
            settings=settings,
            share=share,
            of_verify_only=rate * share / verify_only,
            held=held,
            memory_mib={kind: (memory[kind], after[kind]) for kind in memory},
            waiting_mib=(waiting, _waiting_mib(world)),
            worst=_worst(held, _beside(world.home / "logs" / "postgres.log")),
        )


def _make_log_files(world: World, count: int) -> None:
    """Let the server have as many files of its log as one that has run for a while.

    It makes a new one by writing zeros, and whoever commits meanwhile waits: the median second of
    3,150 events a second had a p99 of 50 to 70 ms instead of 10 to 20.
    """
    with world.connect() as connection:
        for _ in range(count):
            connection.execute("SELECT pg_logical_emit_message(true, 'bench', '')")
            connection.execute("SELECT pg_switch_wal()")
        connection.execute("CHECKPOINT")


def _waiting_mib(world: World) -> float:
    return world.value("SELECT pg_total_relation_size('unadmitted')") / 2**20


_Span = tuple[float, float, str]
"""Unix times of its beginning and end, and what it was."""


def _beside(log: Path) -> list[_Span]:
    """Read from PostgreSQL's log when it wrote checkpoints, and vacuumed which tables."""
    spans: list[_Span] = []
    checkpoint = ended = 0.0
    for text in log.read_text(errors="replace").splitlines():
        if logged := _LOGGED.match(text):
            at, begins, completes, what, table = logged.groups()
            ended = datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp()
            if begins:
                checkpoint = ended
            elif completes:
                spans.append((checkpoint, ended, "checkpoint"))
            else:
                spans.append((ended, ended, f"{what} of {table}"))
        elif (elapsed := _ELAPSED.search(text)) and spans and spans[-1][1] == ended:
            spans[-1] = (ended - float(elapsed[1]), ended, spans[-1][2])
    return spans


def _worst(held: Lease, beside: Sequence[_Span]) -> tuple[Second, ...]:
    if held.result is None:
        return ()
    began = held.result.after - held.result.seconds
    lags = [0.0] * len(held.result.by_second)
    for at, lag in zip(held.sampled_at, held.lags_s, strict=True):
        second = int(at - began)
        if 0 <= second < len(lags):
            lags[second] = max(lags[second], lag)
    seconds = [
        Second(
            at=at,
            p99_ms=p99,
            worst_ms=worst,
            lag_s=lags[at],
            beside=tuple(
                dict.fromkeys(
                    what
                    for starts, ends, what in beside
                    if starts < began + at + 1 and ends >= began + at
                )
            ),
        )
        for at, (p99, worst) in enumerate(held.result.by_second)
    ]
    return tuple(sorted(seconds, key=lambda second: -second.p99_ms)[:_SHOWN])
