"""What every subject runs on: an empty PostgreSQL and Redis with their default settings, and the
subject's processes beside them."""

import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from ingest.local import postgres, valkey
from ingest.local.process import Program
from tests.support.cpu import cpu_s
from tests.support.fleet import Fleet, Member, children_of
from tests.support.ports import free_port

_ROOT = Path(__file__).resolve().parents[2]


class World:
    """Servers and processes, from `with` to its end."""

    def __init__(
        self, *, home: Path | None = None, settings: Sequence[str] = (), keep: bool = False
    ) -> None:
        """`settings` are further `name=value` settings of PostgreSQL; `keep` leaves `home` where it
        is at the end."""
        self._keep = keep
        self.home = home or Path(tempfile.mkdtemp(prefix="ingest-bench-"))
        self.fleet = Fleet()
        self._sockets = self.home / "run"
        self._settings = tuple(settings)

    def __enter__(self) -> Self:
        for folder in (self._sockets, self.home / "logs"):
            folder.mkdir(exist_ok=True)
        self._sockets.chmod(0o700)
        try:
            self.fleet.start(postgres.program(self.home, self._sockets, settings=self._settings))
            self.fleet.start(valkey.program(self.home, self._sockets))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        if error is not None:
            for log in sorted((self.home / "logs").glob("*.log")):
                sys.stderr.write(f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}\n")
        self.close()

    def close(self) -> None:
        """End every process; remove what they kept, unless that is to stay."""
        self.fleet.stop()
        if not self._keep:
            shutil.rmtree(self.home, ignore_errors=True)

    @property
    def database_url(self) -> str:
        """The address of the database."""
        return postgres.url(self._sockets)

    @property
    def redis_url(self) -> str:
        """The address of Redis."""
        return valkey.url(self._sockets)

    def connect(self) -> psycopg.Connection:
        """A connection that commits by itself."""
        return psycopg.connect(self.database_url, autocommit=True)

    def value(self, query: str) -> float:
        """The one number that a query gives."""
        with self.connect() as connection:
            row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return float(row[0] or 0)

    def start(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        ready: Callable[[], bool],
        pass_fds: tuple[int, ...] = (),
    ) -> Member:
        """Start a process of the subject and wait until it is ready; `name` is `kind-number`."""
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith("INGEST_")
        }
        return self.fleet.start(
            Program(
                name=name,
                command=[sys.executable, *command],
                log=self.home / "logs" / f"{name}.log",
                ready=lambda _pid: ready(),
                env=inherited
                | {"PYTHONPATH": str(_ROOT), "TMPDIR": str(self.home)}
                | dict(environment),
                pass_fds=pass_fds,
            )
        )

    def stop(self, *kinds: str) -> None:
        """End the processes of these kinds, as SIGTERM ends them."""
        for name in [name for name in self.fleet.members if name.partition("-")[0] in kinds]:
            self.fleet.hold_down(self.fleet.members[name])
            del self.fleet.members[name]

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far by kind of process, children included."""
        return self._by_kind(cpu_s)

    def memory_mib(self) -> dict[str, float]:
        """Memory by kind of process: what is its own, and its share of what is shared (PSS)."""
        return self._by_kind(_pss_mib)

    def pids(self) -> dict[str, list[int]]:
        """The processes of each kind, and their children."""
        pids: dict[str, list[int]] = {}
        for name, member in self.fleet.members.items():
            kind = pids.setdefault(name.partition("-")[0], [])
            kind += [member.pid, *children_of(member.pid)]
        return pids

    def _by_kind(self, measure: Callable[[int], float]) -> dict[str, float]:
        return {kind: sum(map(measure, pids)) for kind, pids in self.pids().items()}


def answers(port: int, path: str) -> bool:
    """Whether a server answers 200 there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


def run(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run a program of the environment to its end."""
    subprocess.run([sys.executable, *command], env=os.environ | dict(environment), check=True)


def _pss_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def start_uvicorn(world: World, app: str, environment: Mapping[str, str], number: int) -> int:
    """Start plain uvicorn with so many processes of `app`; returns the port."""
    port = free_port()
    log = world.home / "logs" / "receiver-1.log"
    world.start(
        "receiver-1",
        [
            *("-m", "uvicorn", app, "--no-access-log"),
            *("--host", "127.0.0.1", "--port", str(port), "--workers", str(number)),
        ],
        environment,
        ready=lambda: _LISTENS in (text := log.read_text()) and text.count(_STARTED) >= number,
    )
    return port


_LISTENS, _STARTED = "Uvicorn running on", "Application startup complete."
