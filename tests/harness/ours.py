"""This pipeline as a system of the benchmark: a job is an event that a sender posts, signed.

So what is measured has a way to go that the other systems have not: over HTTP, with a signature to
verify, and through admission, which looks for repeats.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from psycopg import AsyncConnection

from ingest import __version__
from ingest.local import process
from ingest.local.process import Program
from tests.harness import job
from tests.harness.protocol import Counts, Settings, run
from tests.support.ports import free_port
from tests.support.signing import SECRET, signed_headers

REDIS = "HARNESS_REDIS_URL"
"""Variable with the address of the Redis that all instances share."""
_ROOT = Path(__file__).resolve().parents[2]
_PATH = "/webhooks/awalchat"
_PROCESSES = 2
_CONNECTIONS = 32
_WAITING = """
    SELECT (SELECT count(*) FROM ingest.unadmitted)
         + (SELECT count(*) FROM ingest.jobs WHERE due_at IS NOT NULL)
"""
_PARTITIONS = """
    SELECT inhrelid::regclass::text FROM pg_inherits
    WHERE inhparent = 'ingest.deliveries'::regclass ORDER BY 1
"""
_ENDS_WITHIN_S = 4.0
"""A system is to end within five seconds."""


class Ours:
    """A receiver, a worker and a relay, with the settings that users get: the defaults."""

    name = "ours"
    version = __version__
    tables: tuple[str, ...] = ("ingest.jobs", "ingest.unadmitted", "ingest.events")

    def __init__(self) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="ingest-harness-")
        self._running: list[subprocess.Popen[bytes]] = []
        self._numbers = time.time_ns()
        self._port = 0
        self._free: asyncio.Queue[_Connection] = asyncio.Queue()

    async def open(self, settings: Settings, counts: Counts) -> None:
        """Migrate, and start the processes."""
        self._settings = settings
        reports = str(Path(self._home.name) / "reports")
        await asyncio.start_unix_server(_Reports(counts).read, reports)
        self._port = free_port()
        inherited = {name: value for name, value in os.environ.items() if "INGEST_" not in name}
        environment = inherited | {
            "PYTHONPATH": str(_ROOT),
            "INGEST_DATA": self._home.name,
            "INGEST_DATABASE_URL": settings.database_url,
            "INGEST_REDIS_URL": os.environ[REDIS],
            "INGEST_AWALCHAT_SECRETS": SECRET,
            "INGEST_PROCESSORS": job.__name__,
            "INGEST_READ_MODEL": "false",
            "INGEST_LOG_FORMAT": "json",
            job.REPORTS: reports,
            job.IN_FLIGHT: str(max(1, settings.workers // _PROCESSES)),
        }
        if settings.instance == 0:
            self._start("migrate", environment, until_it_ended=True)
        self._start("serve", environment, "--port", str(self._port))
        for kind in ("worker", "relay"):
            alive = Path(self._home.name) / f"{kind}.alive"
            self._start(kind, environment | {"INGEST_HEARTBEAT_FILE": str(alive)}, alive=alive)
        for _ in range(_CONNECTIONS):
            self._free.put_nowait(_Connection(self._port))
        async with await AsyncConnection.connect(settings.database_url) as connection:
            rows = await (await connection.execute(_PARTITIONS)).fetchall()
        self.tables += tuple(row[0] for row in rows)

    async def insert(self, count: int) -> int:
        """Post so many events; count those that were answered 200."""
        answers = await asyncio.gather(*(self._post() for _ in range(count)))
        return answers.count(200)

    async def depth(self) -> int:
        """What is not admitted, and jobs that are due."""
        async with await AsyncConnection.connect(self._settings.database_url) as connection:
            row = await (await connection.execute(_WAITING)).fetchone()
        assert row is not None
        return int(row[0])

    async def close(self) -> None:
        """End all processes at once."""
        try:
            await asyncio.to_thread(self._end)
        finally:
            self._home.cleanup()

    def _end(self) -> None:
        for running in self._running:
            running.terminate()
        ends = time.monotonic() + _ENDS_WITHIN_S
        for running in self._running:
            try:
                running.wait(max(0.0, ends - time.monotonic()))
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()

    async def _post(self) -> int:
        self._numbers += 1
        data: dict[str, object] = {
            "order_id": self._numbers,
            "sent_at": time.time(),
            "work_s": self._settings.work_s,
            "padding": "",
        }
        event = {"event": "order.created", "timestamp": "2026-01-20T10:30:00Z", "data": data}
        data["padding"] = self._settings.padding(json.dumps(event))
        body = json.dumps(event).encode()
        connection = await self._free.get()
        try:
            return await connection.post(_PATH, body)
        except OSError:
            return 0
        finally:
            self._free.put_nowait(connection)

    def _start(
        self,
        command: str,
        environment: Mapping[str, str],
        *arguments: str,
        alive: Path | None = None,
        until_it_ended: bool = False,
    ) -> None:
        program = Program(
            name=command,
            command=[sys.executable, "-m", "ingest", command, *arguments],
            log=Path(self._home.name) / f"{command}.log",
            ready=lambda _pid: alive.exists() if alive else _listens(self._port),
            env=environment,
            stop_signal=signal.SIGKILL,  # which it gets when the harness kills this process
        )
        running = process.spawn(program)
        if until_it_ended:
            if running.wait():
                raise RuntimeError(f"`ingest {command}` failed: {program.log.read_text()}")
            return
        self._running.append(running)
        process.wait_until_ready(program, running, timeout_s=60)


class _Connection:
    """A kept-alive connection to the receiver, opened when it is needed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: bytes) -> int:
        """Post, and return the status of the answer.

        Raises:
            OSError: there is no connection.
        """
        head = "".join(f"{name}: {value}\r\n" for name, value in signed_headers(body).items())
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._streams
            writer.write(
                f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{head}"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            _, _, length = answer.partition("content-length:")
            await reader.readexactly(int(length.split("\r\n", 1)[0] or 0))
        except (OSError, EOFError) as error:
            if self._streams is not None:
                self._streams[1].close()
            self._streams = None
            raise OSError("the receiver hung up") from error
        return int(answer.split(" ", 2)[1])


class _Reports:
    """What the jobs report, from each process of the worker."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    async def read(self, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        with suppress(EOFError, OSError):
            while True:
                (late_s,) = job.RECORD.unpack(await reader.readexactly(job.RECORD.size))
                self._counts.ended(late_s)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    run(Ours())
