"""The PostgreSQL that the harness asks for: its port, its role, its settings, without Docker."""

import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

from ingest.local import postgres
from ingest.local.process import Guard, Program

PORT = 15_555
_ROLE = "bench"
_SETTING = re.compile(r"^\s*(\w+)\s*=\s*'?([^'#\n]*?)'?\s*(?:#.*)?$", re.MULTILINE)
_STARTS_WITHIN_S = 60.0


class Server:
    """A PostgreSQL that lives until it is stopped, whichever thread started it."""

    def __init__(self, configuration: Path) -> None:
        """`configuration`: the harness's own postgres.conf."""
        self._settings = tuple(
            f"{name}={value}" for name, value in _SETTING.findall(configuration.read_text())
        )
        self._guard = Guard()
        self._home: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, with empty data unless it was only stopped."""
        if self._process is not None:
            return
        is_new = self._home is None
        if self._home is None:
            self._home = Path(tempfile.mkdtemp(prefix="ingest-harness-pg-"))
            for name in ("run", "logs"):
                (self._home / name).mkdir()
        program = self._program(self._home)
        # Without the death signal of `process.spawn`: the harness starts it from threads that end.
        with program.log.open("ab") as log:
            self._process = subprocess.Popen(
                program.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=program.env,
                start_new_session=True,
                preexec_fn=program.identity.enter,
                user=program.identity.uid,
                group=program.identity.gid,
                extra_groups=None if program.identity.uid is None else [],
            )
        self._guard.watch([(self._process.pid, program.stop_signal)])
        ends = time.monotonic() + _STARTS_WITHIN_S
        while not program.ready(self._process.pid):
            if time.monotonic() > ends or self._process.poll() is not None:
                raise RuntimeError(
                    f"PostgreSQL does not start on port {PORT}:\n{program.log.read_text()}"
                )
            time.sleep(0.05)
        if is_new:
            address = postgres.url(self._home / "run", port=PORT)
            with psycopg.connect(address, autocommit=True) as connection:
                connection.execute(f"CREATE ROLE {_ROLE} SUPERUSER LOGIN".encode())

    def stop(self) -> None:
        """End it as `docker compose stop` does, and keep its data."""
        if self._process is not None and self._home is not None:
            self._process.send_signal(self._program(self._home).stop_signal)
            self._process.wait()
        self._guard.watch([])
        self._process = None

    def remove(self) -> None:
        """End it, and remove its data."""
        self.stop()
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
        self._home = None

    def version(self) -> str:
        """What it calls itself."""
        program = str(postgres.find_binaries() / "postgres")
        return subprocess.check_output([program, "--version"], text=True).strip()

    def _program(self, home: Path) -> Program:
        return postgres.program(
            home,
            home / "run",
            settings=(*self._settings, "listen_addresses=localhost", f"port={PORT}"),
        )
