"""Breaking the receivers, workers and relays."""

import signal
from functools import partial
from random import Random

from tests.faults.world import LEASE_S, World
from tests.support.fleet import Member, children_of, send


def kill_receiver(world: World, random: Random) -> None:
    """SIGKILL one of two."""
    _kill(world, random.choice(world.fleet.named("receiver")))


def kill_worker(world: World, random: Random) -> None:
    """SIGKILL a worker's main process; its children follow it."""
    _kill(world, random.choice(world.fleet.named("worker")))


def kill_child(world: World, random: Random) -> None:
    """SIGKILL a process that runs processors."""
    children = [
        child for member in world.fleet.named("worker") for child in children_of(member.pid)
    ]
    if children:
        send(random.choice(children), signal.SIGKILL)


def kill_relay(world: World, random: Random) -> None:
    """SIGKILL both relays."""
    for relay in world.fleet.named("relay"):
        _kill(world, relay)


def restart_all(world: World, random: Random) -> None:
    """A rolling restart: SIGTERM to each process, the next when it is back."""
    members = [
        member for kind in ("receiver", "worker", "relay") for member in world.fleet.named(kind)
    ]
    random.shuffle(members)
    for member in members:
        member.process.send_signal(signal.SIGTERM)
        _await_restart(world, member, member.starts)
        if member.program.name.startswith("receiver"):
            # Its port is not its own, so that it answers there says nothing.
            world.fleet.until(
                partial(_has_reported, world, member.process.pid),
                what=f"{member.program.name} reports",
                timeout_s=60,
            )


def _has_reported(world: World, pid: int) -> bool:
    with world.connect() as connection:
        row = connection.execute("SELECT FROM processes WHERE pid = %s", [pid]).fetchone()
    return row is not None


def stall_worker(world: World, random: Random) -> None:
    """SIGSTOP a process while it holds jobs, until its lease has ended; then SIGCONT."""
    pid = _stop_one_that_works(world)
    try:
        world.fleet.wait(LEASE_S + random.uniform(1, 3))
    finally:
        send(pid, signal.SIGCONT)


def _stop_one_that_works(world: World) -> int:
    stopped: list[int] = []

    def stop() -> bool:
        with world.connect() as connection:
            working = connection.execute(
                "SELECT DISTINCT worker FROM jobs WHERE lease_until IS NOT NULL"
            ).fetchall()
            for (worker,) in working:
                pid = int(worker.split(":")[1])
                send(pid, signal.SIGSTOP)
                held = connection.execute(
                    "SELECT count(*) FROM jobs WHERE lease_until IS NOT NULL AND worker = %s",
                    [worker],
                ).fetchone()
                if held and held[0]:
                    stopped.append(pid)
                    return True
                send(pid, signal.SIGCONT)
        return False

    world.fleet.until(stop, what="a worker is caught at work", timeout_s=60, every_s=0.005)
    return stopped[0]


def _kill(world: World, member: Member) -> None:
    starts = member.starts
    member.process.kill()
    _await_restart(world, member, starts)


def _await_restart(world: World, member: Member, starts: int) -> None:
    """Until it runs again, whether it is ready is for the recovery to tell."""
    world.fleet.until(
        lambda: member.starts > starts and member.is_running,
        what=f"{member.program.name} is back",
        timeout_s=60,
    )
