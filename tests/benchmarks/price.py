"""What an event costs under load: statements, write-ahead log, Redis commands, CPU, memory."""

from dataclasses import dataclass

import redis

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
    wal_bytes: float
    redis_commands: float
    redis_messages: float
    cpu_s: dict[str, float]
    """Per 1,000 events, by kind of process."""
    memory_mib: dict[str, float]


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
    world.fleet.until(lambda: ours.is_done(world), what="all is done", timeout_s=300, every_s=0.5)
    spent = world.cpu_s()
    return Price(
        events=count,
        statements=world.value("SELECT sum(calls) FROM pg_stat_statements") / count,
        wal_bytes=(_wal(world) - wal) / count,
        redis_commands=(_commands(queue) - commands) / count,
        redis_messages=(_pushed(queue) - pushed) / count,
        cpu_s={kind: (spent[kind] - cpu.get(kind, 0.0)) / count * 1000 for kind in spent}
        | {"client": answered.result.client_cpu_s / count * 1000},
        memory_mib=world.memory_mib(),
    )


def _commands(queue: "redis.Redis") -> int:
    return int(queue.info("stats")["total_commands_processed"])


def _pushed(queue: "redis.Redis") -> int:
    found = queue.info("commandstats")
    return int(found.get("cmdstat_lpush", {}).get("calls", 0))


def _wal(world: World) -> float:
    return world.value("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')")
