"""The system under test on a disk whose power can be cut, and the cut."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import psycopg

from ingest.local import postgres
from ingest.local.process import Program
from tests.faults.world import SETTINGS, World
from tests.power import controls
from tests.power.disk import SWITCH, Lost
from tests.support.fleet import Fleet, children_of, send
from tests.support.waiting import ENDS_WITHIN_S

_SETTINGS = (*SETTINGS, "checkpoint_timeout=30s", "min_wal_size=32MB", "wal_keep_size=0")


_STARTING = "the database system is"
"""What a server answers that starts or recovers."""
_REFUSALS, _STARTS = 20, 5
"""A server that refuses so many connections in a row, or ends so often, is beyond repair."""


class DoesNotStart(Exception):
    """PostgreSQL cannot be started with what is left on the disk."""


class PowerWorld(World):
    """One process of each kind, and PostgreSQL's data on the disk of `tests.power.mount`."""

    counts: ClassVar[Mapping[str, int]] = {"relay": 1, "worker": 1, "receiver": 1}

    def __init__(self, home: Path, *, seed: int, control: str | None, settings: tuple[str, ...]):
        """Start it all in `home`.

        Args:
            home: an empty folder.
            seed: of what a cut takes.
            control: which promise is broken on purpose; None: none.
            settings: further settings of PostgreSQL.
        """
        self._seed = seed
        self._control = control
        self._more = (*settings, *([control] if control == controls.NO_SYNC else []))
        self._disk = home / "disk"
        self._refused: list[str] = []
        self._mounted: subprocess.Popen[bytes] | None = None
        super().__init__(home)

    def command(self, kind: str, _number: int, alive: Path) -> tuple[list[str], Callable[[], bool]]:
        """Return how a process is started, and how one sees that it is ready."""
        command, ready = super().command(kind, _number, alive)
        if kind == "receiver" and self._control is not None:
            arguments = command[command.index("serve") :]
            command = [sys.executable, "-m", "tests.power.controls", self._control, *arguments]
        return command, ready

    def cut_power(self) -> Lost:
        """Cut the power in the midst of whatever happens, and give it back with nothing running;
        return what the disk lost."""
        self._write_switch("cut")
        for member in self.fleet.members.values():
            member.held_down = True
        for member in self.fleet.members.values():
            _kill_all_of(self.fleet, member.pid)
            member.process.wait(ENDS_WITHIN_S)
        self._write_switch("restore")
        postgres.clear_stale_lock(self._disk, self._sockets)
        return Lost(**json.loads((self._disk / SWITCH).read_text()))

    def slow_down(self, sync_s: float) -> None:
        """Let each sync of the disk take so many seconds from now on."""
        self._write_switch(f"slow {sync_s}")

    def boot_database(self) -> float:
        """Start PostgreSQL again; return how many seconds it took until it answered.

        Raises:
            DoesNotStart: it cannot be started, or no connection be made.
        """
        self._refused.clear()
        last_start = self.postgres.starts + _STARTS
        self.fleet.bring_back(self.postgres)

        def answers() -> bool:
            if self.postgres.starts > last_start:
                raise DoesNotStart("it ended as often as it was started")
            return self._answers()

        return self.fleet.until(answers, what="PostgreSQL answers", timeout_s=600)

    def boot_others(self) -> None:
        """Start everything else again.

        Raises:
            EmbeddedError: something does not become ready.
        """
        members = self.fleet.members
        others = [members.pop(name) for name in list(members) if name != "postgres"]
        self.fleet.start_all([self._anew(member.program) for member in others])

    def _anew(self, program: Program) -> Program:
        """Return a process as it is at its first start: the file by which it says that it is ready
        is not there."""
        kind, _, number = program.name.partition("-")
        return self.program(kind, int(number)) if number else program

    def close(self) -> None:
        """End every process, then the disk."""
        try:
            super().close()
        finally:
            if self._mounted is not None:
                subprocess.run(["umount", "--lazy", self._disk], check=False)
                self._mounted.terminate()
                self._mounted.wait(ENDS_WITHIN_S)

    def connect(self) -> psycopg.Connection:
        """An administrator's connection. The disk serves one call after another, so it may take a
        while to be made."""
        return psycopg.connect(self.database_url, autocommit=True, connect_timeout=300)

    def _is_mounted(self) -> bool:
        if self._mounted is not None and self._mounted.poll() is not None:
            raise RuntimeError("the disk could not be mounted")
        return (self._disk / SWITCH).exists()

    def _answers(self) -> bool:
        try:
            with self.connect() as connection:
                return connection.execute("SELECT true").fetchone() is not None
        except psycopg.Error as error:
            if "FATAL" in str(error) and _STARTING not in str(error):
                self._refused.append(str(error).splitlines()[-1])
        if len(self._refused) > _REFUSALS:
            raise DoesNotStart(self._refused[0])
        return False

    def _postgres(self) -> Program:
        self._disk.mkdir()
        self._mounted = subprocess.Popen(
            [sys.executable, "-m", "tests.power.mount", str(self._disk), str(self._seed)],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C must not take the disk from a server that runs
        )
        Fleet().until(self._is_mounted, what="the disk is mounted", timeout_s=300)
        (self._disk / "logs").symlink_to(self.home / "logs")
        program = postgres.program(self._disk, self._sockets, settings=(*_SETTINGS, *self._more))
        self._write_switch("sync")
        return program

    def _write_switch(self, command: str) -> None:
        (self._disk / SWITCH).write_text(command)


def _kill_all_of(fleet: Fleet, pid: int) -> None:
    """Kill a process and those that it started, and wait until they have ended. Each is stopped
    first, so that it starts no others meanwhile."""
    family = [pid]
    for parent in family:
        send(parent, signal.SIGSTOP)
        family += children_of(parent)
    for member in family:
        send(member, signal.SIGKILL)
    orphans = family[1:]
    fleet.until(
        lambda: not any(map(_is_alive, orphans)), what="all have ended", timeout_s=ENDS_WITHIN_S
    )


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
