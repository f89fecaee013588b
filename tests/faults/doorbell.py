"""Breaking Redis."""

import signal
import time
from collections.abc import Callable
from random import Random

from tests.faults import processes
from tests.faults.strike import NotStruck
from tests.faults.world import World
from tests.support.redis_client import connect

_ASIDE = "changed by the fault suite"


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


def pause(world: World, random: Random) -> None:
    """Commands wait, and connections stay open."""
    with connect(world.redis_url) as client:
        client.client_pause(int(random.uniform(3_000, 6_000)))
    world.fleet.wait(6)


def end_connections(world: World, random: Random) -> None:
    """End everybody's connections, over and over."""
    ends = time.monotonic() + 4
    with connect(world.redis_url) as client:
        while time.monotonic() < ends:
            client.client_kill_filter(_type="normal", skipme=True)
            world.fleet.wait(random.uniform(0, 0.1))


def repeat_messages(world: World, random: Random) -> None:
    """Every message that waits comes twice, the copies in another order."""

    def again(messages: list[bytes]) -> list[bytes]:
        return messages + random.sample(messages, len(messages))

    _change_queues(world, random, again)


def lose_messages(world: World, random: Random) -> None:
    """Half of what waits is gone, and the rest in another order."""

    def half(messages: list[bytes]) -> list[bytes]:
        return random.sample(messages, len(messages) // 2)

    _change_queues(world, random, half)


def _change_queues(
    world: World, random: Random, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    """Change what waits in all queues, while no worker takes anything; afterwards they do again."""
    changed = 0
    with processes.held_down(world, "worker"), connect(world.redis_url) as client:
        world.fleet.wait(random.uniform(2, 4))
        for queue in client.scan_iter(_type="list"):
            client.rename(queue, _ASIDE)  # what is pushed meanwhile makes a new list
            messages = client.lrange(_ASIDE, 0, -1)
            changed += len(messages)
            with client.pipeline() as at_once:
                at_once.delete(_ASIDE)
                for message in change(messages):
                    at_once.rpush(queue, message)
                at_once.execute()
    if not changed:
        raise NotStruck("no message waited")
