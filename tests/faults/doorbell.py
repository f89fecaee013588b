"""Breaking Redis."""

import signal
from random import Random

from tests.faults.world import World
from tests.support.redis_client import connect


def kill(world: World, random: Random) -> None:
    """SIGKILL; what it held is gone."""
    world.fleet.hold_down(world.redis, signal.SIGKILL)
    world.fleet.wait(random.uniform(1, 4))
    world.fleet.bring_back(world.redis)


def flush(world: World, random: Random) -> None:
    """FLUSHALL."""
    with connect(world.redis_url) as client:
        client.flushall()


def freeze(world: World, random: Random) -> None:
    """SIGSTOP, then SIGCONT: connections stay open and nothing answers."""
    world.redis.process.send_signal(signal.SIGSTOP)
    try:
        world.fleet.wait(random.uniform(4, 8))
    finally:
        world.redis.process.send_signal(signal.SIGCONT)


def refuse_writes(world: World, random: Random) -> None:
    """`maxmemory` reached: every write is an error."""
    with connect(world.redis_url) as client:
        client.config_set("maxmemory", 1)
    try:
        world.fleet.wait(random.uniform(4, 8))
    finally:
        with connect(world.redis_url) as client:
            client.config_set("maxmemory", 0)
