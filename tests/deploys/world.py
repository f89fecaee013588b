"""Two receivers on ports of their own, two workers, a relay, a console: all of one release or of
two adjacent ones."""

import io
import os
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tests.faults.effects import CREATE_COUNTERS
from tests.faults.world import PLUGIN, World
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
SHUTDOWN_DELAY_S = 3
"""Three of the proxies' health checks."""
NOTICED_S = 2
"""Two of them."""
PROCESSES = (
    *(("receiver", 1), ("receiver", 2), ("worker", 1), ("worker", 2)),
    *(("relay", 1), ("console", 1)),
)
"""In the order in which they are replaced."""


def release_before(folder: Path) -> Path:
    """Extract the code of the release before, by its schema: the parent of the commit that brought
    the newest revision. Needs git and the history."""
    added = _git(
        "log", "--diff-filter=A", "-1", "--format=%H", "--", "migrations/versions"
    ).decode()
    archive = _git("archive", f"{added.strip()}^", "ingest", "workers", "migrations")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder


def _git(*arguments: str) -> bytes:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, check=True).stdout


class DeployWorld(World):
    """A world whose processes are replaced one after another."""

    def __init__(self, home: Path, code: Path) -> None:
        """Start everything with the release in `code`."""
        self.code = code
        """The release that is started from now on."""
        self.receivers = (free_port(), free_port())
        self.console = free_port()
        super().__init__(home)

    def start_all(self) -> None:
        """Start the servers, migrate with the first release, start its processes."""
        self.start_servers()
        self.migrate()
        with self.engine.begin() as connection:
            connection.exec_driver_sql("ALTER DATABASE postgres SET search_path = ingest, public")
            connection.exec_driver_sql(CREATE_COUNTERS)
        self.engine.dispose()  # for connections with the new search path
        more = self.of_release()
        self.fleet.start_all([self.program(kind, number, more) for kind, number in PROCESSES])

    def migrate(self) -> str:
        """Run `ingest migrate` of the release, and return what it says."""
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [sys.executable, "-m", "ingest", "migrate"],
            env=self._environment(self.home / "migrate.alive") | self.of_release(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def roll(self) -> None:
        """Replace each process by one of the release: tell it to end, wait until it has, start the
        next, wait until that is ready, and until the proxies know."""
        for kind, number in PROCESSES:
            self.start(kind, number, self.of_release())
            if kind == "receiver":
                self.fleet.wait(NOTICED_S)

    def of_release(self) -> dict[str, str]:
        """Return what the environment needs for a process to be of the release."""
        return {
            "PYTHONPATH": os.pathsep.join(map(str, (self.code, PLUGIN, ROOT))),
            "PYTHONSAFEPATH": "1",  # not the code in the working folder
            "INGEST_SHUTDOWN_DELAY_S": str(SHUTDOWN_DELAY_S),
        }

    def command(self, kind: str, number: int, alive: Path) -> tuple[list[str], Callable[[], bool]]:
        """Return how a process is started, and how one sees that it is ready."""
        ports = {"receiver": self.receivers[number - 1], "console": self.console}
        arguments = {"receiver": "serve", "console": "console"}
        if kind not in ports:
            return super().command(kind, number, alive)
        path = "/health/ready" if kind == "receiver" else "/health/live"
        command = [sys.executable, "-m", "ingest", arguments[kind], "--port", str(ports[kind])]
        return command, lambda: is_well(ports[kind], path)


def is_well(port: int, path: str) -> bool:
    """Return whether a process answers its health check with 200."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False
