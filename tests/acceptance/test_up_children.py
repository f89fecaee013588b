"""The children of `ingest up`: killed, they come back; without it, they go."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from ingest.local import identity, postgres, process
from tests.acceptance.up import Up, is_running
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_killed_it_leaves_nothing_running_and_loses_nothing(make_up: Callable[..., Up]) -> None:
    up = make_up().wait_until_ready()
    up.command("send", "order.created", "--count", "50")
    up.process.kill()
    up.process.wait()
    until(lambda: not up.left(), what="its children are gone")
    again = make_up().wait_until_ready()
    until(lambda: again.stats()["jobs"]["succeeded"] == 50, what="all are worked on")


def test_killed_and_started_again_at_once_it_waits_for_what_is_just_ending(
    make_up: Callable[..., Up],
) -> None:
    up = make_up().wait_until_ready()
    up.process.kill()
    up.process.wait()
    make_up().wait_until_ready()


@pytest.mark.parametrize(
    "part", ["bin/postgres", "valkey-server", "ingest serve", "workers worker", "workers relay"]
)
def test_a_child_that_is_killed_is_back_soon_and_said_so(
    make_up: Callable[..., Up], part: str
) -> None:
    up = make_up().wait_until_ready()
    victim = up.pid_of(part)
    os.kill(victim, signal.SIGKILL)
    until(
        lambda: "SIGKILL" in up.said and " restarted (pid " in up.said,
        what="it is said",
        timeout_s=300,
    )
    until(lambda: _sends(up), what="events are taken again")
    until(lambda: up.stats()["jobs"]["succeeded"] >= 1, what="events are worked on")


def _sends(up: Up) -> bool:
    with contextlib.suppress(subprocess.CalledProcessError):
        up.command("send", "order.created")
        return True
    return False


def test_several_receivers_share_the_port(make_up: Callable[..., Up]) -> None:
    up = make_up("--receivers", "2", "--workers", "2", "--relays", "2").wait_until_ready()
    receivers = [pid for pid, command in up.family().items() if "ingest serve" in command]
    assert len(receivers) == 2
    os.kill(receivers[0], signal.SIGKILL)
    up.command("send", "order.created", "--count", "20")
    until(lambda: up.stats()["jobs"]["succeeded"] == 20)


@pytest.mark.skipif(os.geteuid() != 0, reason="for root only")
@pytest.mark.parametrize("way", ["namespace", "nobody"])
def test_root_has_two_ways_to_run_postgres(tmp_path: Path, way: str) -> None:
    """Below a folder that only root may enter, and where user namespaces are forbidden."""
    home = Path(tempfile.mkdtemp(prefix="ingest-root-"))
    sockets = home / "run"
    sockets.mkdir(mode=0o700)
    (home / "logs").mkdir()
    if way == "namespace":
        home.chmod(0o700)
    else:
        who = identity.as_nobody()
        home.chmod(0o711)
        who.own(sockets)
        if not identity._can_run(who, home, postgres.find_binaries() / "postgres"):
            pytest.skip("nobody cannot reach the server's binary here")
        postgres._initialise(postgres.find_binaries(), home / "postgres", who)
    program = postgres.program(home, sockets)
    assert (program.identity.uid is None) == (way == "namespace")
    running = process.spawn(program)
    try:
        process.wait_until_ready(program, running, timeout_s=300)
        with psycopg.connect(postgres.url(sockets)) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        process.stop(program, running)
    assert running.returncode == 0


def test_where_the_kernel_sends_no_death_signal_a_guard_does(tmp_path: Path) -> None:
    """The stand-in for macOS, run here."""
    script = (
        "import os, signal, subprocess, sys, time\n"
        "from ingest.local.process import Guard\n"
        "guard = Guard()\n"
        "child = subprocess.Popen(['sleep', '300'], start_new_session=True)\n"
        "former = subprocess.Popen(['sleep', '300'], start_new_session=True)\n"
        "guard.watch([(former.pid, signal.SIGTERM)])\n"
        "guard.watch([(child.pid, signal.SIGTERM)])\n"
        "print(child.pid, former.pid, flush=True)\n"
        "time.sleep(300)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child, former = map(int, parent.stdout.readline().split())
        parent.kill()
    until(lambda: not is_running(child), what="the child is ended")
    assert is_running(former)
    os.kill(former, signal.SIGKILL)
