"""Breaking the receivers, workers and relays."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random

from tests.faults import deploys
from tests.faults.world import LEASE_S, World
from tests.support.fleet import Member, children_of, send

_CALLS = 4
"""Calls of a processor that needs more memory than there is."""
_CONNECTIONS = 30
"""New connections that are tried for."""


def kill_receiver(world: World, random: Random) -> None:
    """SIGKILL one of two."""
    _kill(world, random.choice(world.fleet.named("receiver")))


def kill_worker(world: World, random: Random) -> None:
    """SIGKILL a worker's main process; its children follow it."""
    _kill(world, random.choice(world.fleet.named("worker")))


def kill_child(world: World, random: Random) -> None:
    """SIGKILL a process that runs processors."""
    children = _children(world)
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


def freeze_receiver(world: World, random: Random) -> None:
    """SIGSTOP one of two receivers: the kernel still accepts connections for it."""
    _freeze([random.choice(world.fleet.named("receiver")).pid], world, random)


def freeze_relays(world: World, random: Random) -> None:
    """SIGSTOP both relays."""
    _freeze([relay.pid for relay in world.fleet.named("relay")], world, random)


def freeze_children(world: World, random: Random) -> None:
    """SIGSTOP every process that runs processors, for less than their leases."""
    _freeze(_children(world), world, random)


def take_workers_away(world: World, random: Random) -> None:
    """No worker for a while; what waits is then worked on while as much comes in."""
    _away(world, "worker", random.uniform(8, 12))


def take_relays_away(world: World, random: Random) -> None:
    """No relay for a while."""
    _away(world, "relay", random.uniform(8, 12))


def crowd_cores(world: World, random: Random) -> None:
    """Others take the cores: three spinning processes for each."""
    spin = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(spin) for _ in range(3 * (os.cpu_count() or 1))]
    try:
        world.fleet.wait(random.uniform(6, 9))
    finally:
        for other in others:
            other.kill()
            other.wait()


def use_up_memory(world: World, random: Random) -> None:
    """Processes that run processors get no more memory than they have, and a processor that needs
    much is called."""
    limited = [pid for pid in _children(world) if _limit(pid, resource.RLIMIT_AS, _size_of(pid))]
    try:
        for _ in range(_CALLS):
            deploys.post_poison(world, "memory", random)
            world.fleet.wait(random.uniform(1, 2))
    finally:
        for pid in limited:
            _limit(pid, resource.RLIMIT_AS, resource.RLIM_INFINITY)


def use_up_files(world: World, random: Random) -> None:
    """A receiver may open no more files, so that it takes no new connection."""
    pid = random.choice(world.fleet.named("receiver")).pid
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        before, _ = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        _limit(pid, resource.RLIMIT_NOFILE, len(list(Path(f"/proc/{pid}/fd").iterdir())))
        try:
            for _ in range(_CONNECTIONS):
                world.is_ready()
                world.fleet.wait(random.uniform(0, 0.4))
        finally:
            _limit(pid, resource.RLIMIT_NOFILE, before)


def _children(world: World) -> list[int]:
    return [child for worker in world.fleet.named("worker") for child in children_of(worker.pid)]


def _freeze(pids: Sequence[int], world: World, random: Random) -> None:
    for pid in pids:
        send(pid, signal.SIGSTOP)
    try:
        world.fleet.wait(random.uniform(4, 7))
    finally:
        for pid in pids:
            send(pid, signal.SIGCONT)


def _away(world: World, kind: str, seconds: float) -> None:
    members = world.fleet.named(kind)
    for member in members:
        world.fleet.hold_down(member)
    world.fleet.wait(seconds)
    for member in members:
        world.fleet.bring_back(member)


def _limit(pid: int, what: int, most: int) -> bool:
    """Change a process's own limit, not that which it may set; return whether it was there."""
    try:
        _, hard = resource.prlimit(pid, what)
        resource.prlimit(pid, what, (most, hard))
    except ProcessLookupError:
        return False
    return True


def _size_of(pid: int) -> int:
    """Return the bytes that a process has mapped; 0: it has ended."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(pages) * resource.getpagesize()


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
