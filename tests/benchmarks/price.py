"""What an event costs under load: statements, pages, write-ahead log, system calls, CPU, memory."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import MappingProxyType

import redis

from tests.benchmarks import system_calls
from tests.benchmarks.answers import Target
from tests.benchmarks.ours import Ours
from tests.benchmarks.world import World

SETTINGS = ("shared_preload_libraries=pg_stat_statements", "pg_stat_statements.track=top")
"""Of the PostgreSQL that is to be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Per event, from its request to its effect."""

    events: int
    statements: float
    """SQL statements, BEGIN and COMMIT among them."""
    pages_dirtied: float
    """Pages of tables and indexes that a statement changed first since they were written out."""
    wal_bytes: float
    redis_commands: float
    redis_messages: float
    system_calls: dict[str, float]
    """By kind of process; empty: they could not be counted here."""
    cpu_s: dict[str, float]
    """Per 1,000 events, by kind of process."""
    memory_mib: dict[str, float]


BUDGETS: Mapping[str, float] = MappingProxyType(
    {
        "statements": 0.5,
        "pages_dirtied": 0.2,
        "wal_bytes": 2_200,
        "redis_messages": 0.1,
        "system_calls": 20,
        "cpu_s": 0.4,
    }
)
"""What an event is to cost at most. `system_calls` and `cpu_s` are those of all processes but the
client together, the latter per 1,000 events. The table says where a budget is exceeded, and
docs/performance.md why."""


def measure(world: World, ours: Ours, count: int) -> Price:
    """Send `count` messages as fast as they are answered, workers at work; wait until all is
    done."""
    target = Target(world, ours)
    ours.start_workers(world)
    with world.connect() as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        connection.execute("SELECT pg_stat_statements_reset()")
    queue = redis.Redis.from_url(world.redis_url)
    commands, pushed, wal, cpu = _commands(queue), _pushed(queue), _wal(world), world.cpu_s()
    answered = target.ask(count=count, connections=64)
    _await_end(world, ours)
    spent = world.cpu_s()
    statements = world.value("SELECT sum(calls) FROM pg_stat_statements")
    dirtied = world.value("SELECT sum(shared_blks_dirtied) FROM pg_stat_statements")
    wal, commands, pushed = _wal(world) - wal, _commands(queue) - commands, _pushed(queue) - pushed
    return Price(
        events=count,
        statements=statements / count,
        pages_dirtied=dirtied / count,
        wal_bytes=wal / count,
        redis_commands=commands / count,
        redis_messages=pushed / count,
        cpu_s={kind: (spent[kind] - cpu.get(kind, 0.0)) / count * 1000 for kind in spent}
        | {"client": answered.result.client_cpu_s / count * 1000},
        memory_mib=world.memory_mib(),
        system_calls=_system_calls(world, ours, target, count),
    )


def _system_calls(world: World, ours: Ours, target: Target, count: int) -> dict[str, float]:
    """Send as many again, and count: in a run of its own, since to count costs time too."""
    with ExitStack() as ends:
        counters = {
            kind: ends.enter_context(system_calls.counted(pids))
            for kind, pids in world.pids().items()
        }
        target.ask(count=count, connections=64)
        _await_end(world, ours)
    if not all(counter.is_counted for counter in counters.values()):
        return {}
    return {kind: counter.calls / count for kind, counter in counters.items()}


def _await_end(world: World, ours: Ours) -> None:
    world.fleet.until(lambda: ours.is_done(world), what="all is done", timeout_s=300, every_s=0.5)


def _commands(queue: "redis.Redis") -> int:
    return int(queue.info("stats")["total_commands_processed"])


def _pushed(queue: "redis.Redis") -> int:
    found = queue.info("commandstats")
    return int(found.get("cmdstat_lpush", {}).get("calls", 0))


def _wal(world: World) -> float:
    return world.value("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')")
