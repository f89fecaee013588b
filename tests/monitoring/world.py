"""What is watched: PostgreSQL, Redis, a receiver, a worker, a relay, a console; and Prometheus."""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from ingest.local import postgres, valkey
from ingest.local.process import Program
from ingest.store import migrations, partitions
from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from tests.monitoring.load import OLDER_SECRET, Load
from tests.monitoring.prometheus import Prometheus
from tests.support.fleet import Fleet, Member
from tests.support.ports import free_port
from tests.support.signing import SECRET

ROOT = Path(__file__).parents[2]
PROCESSES = ("receiver", "worker", "relay", "console")
PROCESSORS = "tests.monitoring.processors"
BOTH_MODULES = f"{PROCESSORS},tests.monitoring.removed"
WORKERS_ROLE = "worker"
"""The worker's own role, so that PostgreSQL can be away for it alone."""
_DAYS_AHEAD = 14
_SERVES = {"receiver": ("serve", "/health/ready"), "console": ("console", "/health/live")}


class World:
    """Everything that runs, and its load."""

    def __init__(self, home: Path) -> None:
        """Start it all in `home`, an empty folder.

        Raises:
            SystemExit: Prometheus is not installed.
        """
        self.home = home
        self.fleet = Fleet()
        self.flags = home / "flags"
        self._sockets = home / "run"
        for folder in (self._sockets, self.flags, home / "logs"):
            folder.mkdir()
        self._sockets.chmod(0o700)
        self.ports = {process: free_port() for process in _SERVES}
        self.metrics_ports = {process: free_port() for process in PROCESSES}
        self.prometheus = Prometheus(home, self.metrics_ports)
        self.load = Load(self.ports["receiver"])
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    @property
    def database_url(self) -> str:
        """The address of the database."""
        return postgres.url(self._sockets)

    def connect(self) -> psycopg.Connection:
        """Return an administrator's connection of its own; each statement is committed."""
        return psycopg.connect(self.database_url, autocommit=True, connect_timeout=20)

    def member(self, name: str) -> Member:
        """Return a process or a server."""
        return self.fleet.members[name]

    def restart(self, process: str, **environment: str) -> None:
        """Replace a process by one with other settings."""
        self.fleet.hold_down(self.member(process))
        self.fleet.start(self._program(process, environment))

    def start_again(self, *names: str) -> None:
        """Start processes or servers that were held down, and wait until they are ready."""
        for name in names:
            self.fleet.bring_back(self.member(name))
        for name in names:
            member = self.member(name)
            self.fleet.until(
                lambda member=member: member.program.ready(member.pid),  # type: ignore[misc]
                what=f"{name} is ready",
                timeout_s=120,
            )

    def ensure_partitions(self) -> None:
        """Make the partitions of the coming days, where they are missing."""
        engine = create_engine(parse(self.database_url), role=Role.MIGRATION)
        with engine.begin() as connection:
            today = datetime.now(UTC).date()
            partitions.ensure(connection, today=today, days_ahead=_DAYS_AHEAD)
        engine.dispose()

    def drop_partitions(self) -> None:
        """Drop the partitions of the days after today."""
        engine = create_engine(parse(self.database_url), role=Role.MIGRATION)
        with engine.begin() as connection:
            for day in partitions.days(connection):
                if day > datetime.now(UTC).date():
                    partitions.drop(connection, day)
        engine.dispose()

    def ask_console(self, path: str, content: bytes | None = None) -> None:
        """Ask the console's API, as an operator's program does; with `content`, POST it."""
        address = f"http://127.0.0.1:{self.ports['console']}/api/v1{path}"
        headers = {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(address, content, headers), timeout=60):
            pass

    def replay_dead(self, processor: str) -> None:
        """Replay the dead letters of a processor by the command."""
        subprocess.run(
            [sys.executable, "-m", "ingest", "replay", "--state=dead", f"--processor={processor}"],
            env=self._environment("console", self.home / "replay.alive"),
            cwd=self.home,
            check=True,
            capture_output=True,
        )

    def close(self) -> None:
        """End every process."""
        self.load.stop()
        self.fleet.stop()

    def _start(self) -> None:
        self.fleet.start(postgres.program(self.home, self._sockets))
        self.fleet.start(valkey.program(self.home, self._sockets))
        self._migrate()
        self.fleet.start_all([self._program(process, {}) for process in PROCESSES])
        self.load.start()
        self.fleet.start(self.prometheus.program())
        self.fleet.until(
            lambda: self.prometheus.up() == len(PROCESSES) and not self.prometheus.firing(),
            what="each process is scraped, and no alert fires",
            timeout_s=120,
        )

    def _migrate(self) -> None:
        engine = create_engine(parse(self.database_url), role=Role.MIGRATION)
        with engine.connect() as connection:
            migrations.upgrade(connection)
        engine.dispose()
        self.ensure_partitions()
        with self.connect() as connection:
            connection.execute(f"CREATE ROLE {WORKERS_ROLE} SUPERUSER LOGIN")

    def _program(self, process: str, more: Mapping[str, str]) -> Program:
        alive = self.home / f"{process}.alive"
        alive.unlink(missing_ok=True)
        command, ready = self._command(process, alive)
        environment = {f"INGEST_{name.upper()}": value for name, value in more.items()}
        return Program(
            name=process,
            command=[sys.executable, "-m", *command],
            log=self.home / "logs" / f"{process}.log",
            ready=lambda _pid: ready(),
            env=self._environment(process, alive) | environment,
        )

    def _command(self, process: str, alive: Path) -> tuple[list[str], Callable[[], bool]]:
        if process == "relay":
            return ["tests.monitoring.relay", "relay"], alive.exists
        if process == "worker":
            return ["workers", "worker"], alive.exists
        name, path = _SERVES[process]
        port = self.ports[process]
        return ["ingest", name, "--port", str(port)], lambda: _is_well(port, path)

    def _environment(self, process: str, alive: Path) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if "INGEST_" not in name}
        plugin = ROOT / "tests/monitoring/plugin"
        ports = {
            f"INGEST_{name.upper()}_METRICS_PORT": str(port)
            for name, port in self.metrics_ports.items()
        }
        role = WORKERS_ROLE if process == "worker" else postgres.USER
        return inherited | {
            "INGEST_DATA": str(self.home),
            "INGEST_DATABASE_URL": self.database_url.replace(f"{postgres.USER}@", f"{role}@", 1),
            "INGEST_REDIS_URL": valkey.url(self._sockets),
            "INGEST_AWALCHAT_SECRETS": f"{SECRET},{OLDER_SECRET}",
            "INGEST_TILL_SECRETS": SECRET,
            "INGEST_READ_MODEL": "false",
            "INGEST_FLUSH_TIMEOUT_S": "60",  # a machine that stands still is no fault of storage
            "INGEST_ACTIVITY_RETENTION_DAYS": "30",
            "INGEST_PROCESSORS": BOTH_MODULES,
            "INGEST_LOG_FORMAT": "json",
            "INGEST_HEARTBEAT_FILE": str(alive),
            "MONITORING_FLAGS": str(self.flags),
            "PYTHONPATH": os.pathsep.join(map(str, (plugin, ROOT))),
            "TMPDIR": str(self.home),
            **ports,
        }


def _is_well(port: int, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False
