"""The system under test: PostgreSQL, Redis, two receivers on one port, two workers, two relays."""

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import psycopg
from sqlalchemy import Engine

from ingest.cli.listening import listen
from ingest.local import postgres, valkey
from ingest.local.process import Program
from ingest.store import migrations, partitions
from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from tests.faults.effects import CREATE_COUNTERS, CREATE_HOLDS, CREATE_LINES
from tests.support.fleet import Fleet, Member
from tests.support.signing import SECRET

LEASE_S = 10
"""The one setting that is not its default (60 s), so that a stalled worker is waited for less."""

PLUGIN = Path(__file__).parents[1] / "plugin"
LEDGER_SECRET = "the_secret_of_the_ledger_0123456789"
SETTINGS = ("max_wal_size=128MB", "track_commit_timestamp=on")
"""The second says in which order deliveries were committed."""
_POSTGRES_DISK = "4g"


class World:
    """Everything that runs, and the files that it keeps."""

    counts: ClassVar[Mapping[str, int]] = {"relay": 2, "worker": 2, "receiver": 2}
    """How many processes of each kind there are, in the order in which they start."""

    def __init__(self, home: Path) -> None:
        """Start it all in `home`, an empty folder."""
        self.home = home
        self.fleet = Fleet()
        self.flags = home / "flags"
        self.outside = home / "outside.txt"
        """Where the processors' effects outside PostgreSQL go, a line each."""
        self.disk: Path | None = None
        """The small file system that PostgreSQL is on, where one could be made."""
        self.windows: list[tuple[float, float]] = []
        """Unix times between which PostgreSQL was stopped."""
        self._sockets = home / "run"
        for folder in (self._sockets, self.flags, home / "logs"):
            folder.mkdir()
        self._sockets.chmod(0o700)
        self._listener = listen("127.0.0.1", 0)
        self.engine: Engine = create_engine(
            parse(self.database_url), role=Role.PROCESSOR, pool_size=4
        )
        try:
            self.start_all()
        except BaseException:
            self.close()
            raise

    @property
    def sockets(self) -> Path:
        """The folder of the servers' sockets."""
        return self._sockets

    @property
    def database_url(self) -> str:
        """The address of the database."""
        return postgres.url(self._sockets)

    @property
    def redis_url(self) -> str:
        """The address of Redis."""
        return valkey.url(self._sockets)

    @property
    def port(self) -> int:
        """The port that the receivers share."""
        found: int = self._listener.getsockname()[1]
        return found

    @property
    def postgres(self) -> Member:
        """PostgreSQL."""
        return self.fleet.members["postgres"]

    @property
    def redis(self) -> Member:
        """Redis."""
        return self.fleet.members["redis"]

    def start(self, kind: str, number: int, more: Mapping[str, str] | None = None) -> None:
        """Start (or replace) a receiver, worker or relay, with `more` in its environment."""
        name = f"{kind}-{number}"
        old = self.fleet.members.get(name)
        if old is not None:
            self.fleet.hold_down(old)
        self.fleet.start(self.program(kind, number, more))

    def program(self, kind: str, number: int, more: Mapping[str, str] | None = None) -> Program:
        """Return a receiver, worker or relay, with `more` in its environment."""
        name = f"{kind}-{number}"
        alive = self.home / f"{name}.alive"
        alive.unlink(missing_ok=True)
        command, ready = self.command(kind, number, alive)
        return Program(
            name=name,
            command=command,
            log=self.home / "logs" / f"{name}.log",
            ready=lambda _pid: ready(),
            env=self._environment(alive) | dict(more or {}),
            pass_fds=(self._listener.fileno(),) if kind == "receiver" else (),
        )

    def command(self, kind: str, _number: int, alive: Path) -> tuple[list[str], Callable[[], bool]]:
        """Return how a process is started, and how one sees that it is ready."""
        if kind != "receiver":
            return [sys.executable, "-m", "workers", kind], alive.exists
        serve = ["serve", "--fd", str(self._listener.fileno())]
        return [sys.executable, "-m", "ingest", *serve], self.is_ready

    def connect(self) -> psycopg.Connection:
        """An administrator's connection of its own."""
        return psycopg.connect(self.database_url, autocommit=True, connect_timeout=2)

    def is_ready(self) -> bool:
        """Whether a receiver would take a delivery."""
        try:
            address = f"http://127.0.0.1:{self.port}/health/ready"
            with urllib.request.urlopen(address, timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def close(self) -> None:
        """End every process, and give the small disk back."""
        self.engine.dispose()
        self.fleet.stop()
        self._listener.close()
        if self.disk is not None:
            os.system(f"umount {self.disk}")  # noqa: S605 - a path of ours

    def start_all(self) -> None:
        """Start the servers, migrate, start the processes."""
        self.start_servers()
        self._migrate()
        for kind, count in self.counts.items():
            for number in range(1, count + 1):
                self.start(kind, number)

    def start_servers(self) -> None:
        """Start PostgreSQL and Redis."""
        self.fleet.start(self._postgres())
        self.fleet.start(valkey.program(self.home, self._sockets))

    def _postgres(self) -> Program:
        """PostgreSQL, on a small disk of its own if we may mount one."""
        home = self.home
        small = home / "disk"
        small.mkdir()
        mount = f"mount -t tmpfs -o size={_POSTGRES_DISK},mode=755 none {small} 2>/dev/null"
        if os.geteuid() == 0 and os.system(mount) == 0:  # noqa: S605 - a path of ours
            self.disk = home = small
            (small / "logs").symlink_to(self.home / "logs")
        return postgres.program(home, self._sockets, settings=SETTINGS)

    def _migrate(self) -> None:
        engine = create_engine(parse(self.database_url), role=Role.MIGRATION)
        with engine.connect() as connection:
            migrations.upgrade(connection)
        with engine.begin() as connection:
            partitions.ensure(connection, today=datetime.now(UTC).date(), days_ahead=2)
            # The suite asks by bare names.
            connection.exec_driver_sql("ALTER DATABASE postgres SET search_path = ingest, public")
        engine.dispose()
        with self.engine.begin() as connection:
            connection.exec_driver_sql(CREATE_COUNTERS)
            connection.exec_driver_sql(CREATE_LINES)
            connection.exec_driver_sql(CREATE_HOLDS)

    def _environment(self, alive: Path) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if "INGEST_" not in name}
        return inherited | {
            "INGEST_DATA": str(self.home),
            "INGEST_DATABASE_URL": self.database_url,
            "INGEST_REDIS_URL": self.redis_url,
            "INGEST_AWALCHAT_SECRETS": SECRET,
            "INGEST_LEDGER_SECRETS": LEDGER_SECRET,
            "PYTHONPATH": str(PLUGIN),
            "INGEST_PROCESSORS": "tests.faults.effects",
            "INGEST_LEASE_S": str(LEASE_S),
            "INGEST_LOG_FORMAT": "json",
            "INGEST_HEARTBEAT_FILE": str(alive),
            "FAULTS_FLAGS": str(self.flags),
            "FAULTS_OUTSIDE": str(self.outside),
            "TMPDIR": str(self.home),
        }
