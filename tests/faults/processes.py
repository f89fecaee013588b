"""Breaking the receivers, workers and relays."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random

from tests.faults import deploys
from tests.faults.strike import NotStruck
from tests.faults.world import LEASE_S, World
from tests.support.fleet import Member, children_of, send

_CALLS = 4
"""Calls of a processor that needs more memory than there is."""
_CONNECTIONS = 30
"""New connections that are tried for."""
_REPORTS_WITHIN_S = 300


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
            await_report(world, member.program.name)


def await_report(world: World, name: str) -> None:
    """Wait until a receiver has told the database that it runs. Its port is not its own, so that
    one answers there says nothing."""
    pid = world.fleet.members[name].pid
    world.fleet.until(
        partial(_has_reported, world, pid), what=f"{name} reports", timeout_s=_REPORTS_WITHIN_S
    )


def _has_reported(world: World, pid: int) -> bool:
    with world.connect() as connection:
        row = connection.execute("SELECT FROM processes WHERE pid = %s", [pid]).fetchone()
    return row is not None


def stall_worker(world: World, random: Random) -> None:
    """SIGSTOP a process while it holds jobs, until its lease has ended; then SIGCONT."""
    with stopped([_stop_one_that_works(world)]):
        world.fleet.wait(LEASE_S + random.uniform(1, 3))


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
    with held_down(world, "worker"):
        world.fleet.wait(random.uniform(8, 12))


def take_relays_away(world: World, random: Random) -> None:
    """No relay for a while."""
    with held_down(world, "relay"):
        world.fleet.wait(random.uniform(8, 12))


def crowd_cores(world: World, random: Random) -> None:
    """Others take the cores: three spinning processes for each, which end by themselves."""
    seconds = random.uniform(6, 9)
    spin = f"import time\nends = time.monotonic() + {seconds}\nwhile time.monotonic() < ends: pass"
    others = 3 * (os.cpu_count() or 1)
    with contextlib.ExitStack() as stack:
        for _ in range(others):
            stack.enter_context(subprocess.Popen([sys.executable, "-c", spin]))
        world.fleet.wait(seconds)


def use_up_memory(world: World, random: Random) -> None:
    """Processes that run processors get no more memory than they have, and a processor that needs
    much is called."""
    with contextlib.ExitStack() as stack:
        for pid in _children(world):
            stack.enter_context(_limited(pid, resource.RLIMIT_AS, _size_of(pid)))
        for _ in range(_CALLS):
            deploys.post_poison(world, "memory", random)
            world.fleet.wait(random.uniform(1, 2))


def use_up_files(world: World, random: Random) -> None:
    """A receiver may open no more files, so that it takes no new connection."""
    pid = random.choice(world.fleet.named("receiver")).pid
    with _limited(pid, resource.RLIMIT_NOFILE, _next_file_of(pid)):
        answers = []
        for _ in range(_CONNECTIONS):
            answers.append(world.is_ready())
            world.fleet.wait(random.uniform(0, 0.4))
    if all(answers):
        raise NotStruck("no new connection was refused")


def _children(world: World) -> list[int]:
    return [child for worker in world.fleet.named("worker") for child in children_of(worker.pid)]


def _freeze(pids: Sequence[int], world: World, random: Random) -> None:
    with stopped(pids):
        world.fleet.wait(random.uniform(4, 7))


@contextlib.contextmanager
def stopped(pids: Sequence[int]) -> Iterator[None]:
    """SIGSTOP for processes, and SIGCONT at the end."""
    try:
        for pid in pids:
            send(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            send(pid, signal.SIGCONT)


@contextlib.contextmanager
def held_down(world: World, kind: str) -> Iterator[None]:
    """End all processes of a kind, and have them again at the end."""
    members = world.fleet.named(kind)
    try:
        for member in members:
            world.fleet.hold_down(member)
        yield
    finally:
        for member in members:
            world.fleet.bring_back(member)


@contextlib.contextmanager
def _limited(pid: int, what: int, most: int | None) -> Iterator[None]:
    """Limit a process for now; None, or one that has ended: do nothing."""
    try:
        before = resource.prlimit(pid, what)
        if most is not None:
            resource.prlimit(pid, what, (most, before[1]))
    except ProcessLookupError:
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, what, before)


def _size_of(pid: int) -> int | None:
    """Return the bytes that a process has mapped; None: it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    except (OSError, IndexError):
        return None
    return pages * resource.getpagesize() or None


def _next_file_of(pid: int) -> int | None:
    """Return the number of the next file that a process opens; None: it has ended."""
    try:
        taken = {int(file.name) for file in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:
        return None
    return next(number for number in range(len(taken) + 1) if number not in taken)


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
