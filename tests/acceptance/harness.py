"""Real processes over real HTTP, on a database and a Redis of their own."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from tests.support.ports import free_port
from tests.support.rows import one, rows
from tests.support.signing import SECRET, signed_headers
from tests.support.waiting import ENDS_WITHIN_S, until


@dataclass(frozen=True)
class Answer:
    """What came back, and how long it took."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Stack:
    """Processes that share a database and a Redis; ended when the test ends."""

    def __init__(self, database_url: str, redis_url: str, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.environment = {
            "INGEST_DATABASE_URL": database_url,
            "INGEST_REDIS_URL": redis_url,
            "INGEST_AWALCHAT_SECRETS": SECRET,
            "INGEST_LOG_FORMAT": "json",
            "INGEST_RETRY_BASE_S": "0.2",
            "INGEST_RETRY_MAX_DELAY_S": "1",
            "INGEST_WORKER_DRAIN_S": "5",
            "INGEST_FLUSH_TIMEOUT_S": "60",
            "TMPDIR": str(folder),
        } | {f"INGEST_{name.upper()}": value for name, value in environment.items()}
        self.engine: Engine = create_engine(parse(database_url), role=Role.PROCESSOR, pool_size=5)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.ports: list[int] = []
        self.console_port = 0

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start `ingest ARGUMENTS`."""
        more = {f"INGEST_{name.upper()}": value for name, value in environment.items()}
        with (self.folder / f"{arguments[0]}-{len(self.processes)}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "ingest", *arguments],
                cwd=self.folder,
                env=os.environ | self.environment | more,
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def receiver(self, **environment: str) -> subprocess.Popen[bytes]:
        """Start a receiver on a port of its own and wait until it is ready."""
        port = free_port()
        process = self.start("serve", "--port", str(port), **environment)
        self.ports.append(port)
        until(lambda: self._is_ready(port, process), what="the receiver is ready")
        return process

    def worker(self, **environment: str) -> subprocess.Popen[bytes]:
        """Start a worker and wait until it consumes."""
        return self._start_and_wait("worker", **environment)

    def relay(self, **environment: str) -> subprocess.Popen[bytes]:
        """Start a relay and wait until it sweeps."""
        return self._start_and_wait("relay", **environment)

    def console(self, **environment: str) -> subprocess.Popen[bytes]:
        """Start a console and wait until it answers."""
        self.console_port = free_port()
        receiver = {"port": str(self.ports[0])} if self.ports else {}
        process = self.start(
            "console", "--port", str(self.console_port), **(receiver | environment)
        )
        until(lambda: self._serves(process), what="the console answers")
        return process

    def _serves(self, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, self.logs()[-3000:]
        try:
            return request(self.console_port, "GET", "/health/live").status == 200
        except OSError:
            return False

    def ask(self, path: str, **headers: str) -> Answer:
        """What the console answers to a GET."""
        return request(self.console_port, "GET", path, headers=headers)

    def tell(self, path: str, document: object = None, **headers: str) -> Answer:
        """What the console's API answers to a POST of JSON."""
        body = b"{}" if document is None else json.dumps(document).encode()
        return request(
            self.console_port,
            "POST",
            f"/api/v1{path}",
            body,
            {"content-type": "application/json"} | headers,
        )

    def _start_and_wait(self, kind: str, **environment: str) -> subprocess.Popen[bytes]:
        alive = self.folder / f"{kind}-{len(self.processes)}.alive"
        process = self.start(kind, heartbeat_file=str(alive), **environment)
        until(lambda: alive.exists() or process.poll() is not None, what=f"the {kind} runs")
        assert process.poll() is None, self.logs()[-3000:]
        return process

    def _is_ready(self, port: int, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, self.logs()[-3000:]
        try:
            return request(port, "GET", "/health/ready").status == 200
        except OSError:
            return False

    def post(self, body: bytes, *, port: int | None = None, **headers: str) -> Answer:
        """Post a body, signed now."""
        return request(
            port or self.ports[0],
            "POST",
            "/webhooks/awalchat",
            body,
            signed_headers(body) | headers,
        )

    def post_all(self, bodies: Iterable[bytes], *, connections: int = 16) -> list[Answer]:
        """Post bodies over several connections, spread over the receivers."""
        listed = list(bodies)
        with ThreadPoolExecutor(connections) as pool:
            parts = [listed[start::connections] for start in range(connections)]
            answers = pool.map(self._post_part, range(connections), parts)
            return [answer for part in answers for answer in part]

    def _post_part(self, number: int, bodies: Sequence[bytes]) -> list[Answer]:
        client = http.client.HTTPConnection(
            "127.0.0.1", self.ports[number % len(self.ports)], timeout=300
        )
        try:
            return [
                _exchange(client, "POST", "/webhooks/awalchat", body, signed_headers(body))
                for body in bodies
            ]
        finally:
            client.close()

    def command(self, *arguments: str, ok: bool = True) -> str:
        """What `ingest ARGUMENTS` prints."""
        done = subprocess.run(
            [sys.executable, "-m", "ingest", *arguments],
            cwd=self.folder,
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert (done.returncode == 0) is ok, done.stderr
        return done.stdout if ok else done.stderr

    def stats(self) -> dict[str, dict[str, int]]:
        """The counts, as the command gives them."""
        found: dict[str, dict[str, int]] = json.loads(self.command("stats", "--json"))
        return found

    def show(self, event: str) -> dict[str, Any]:
        """An event, as the command gives it."""
        found: dict[str, Any] = json.loads(self.command("events", "show", event, "--json"))
        return found

    def query(self, sql: str, **values: Any) -> list[dict[str, Any]]:
        return rows(self.engine, sql, **values)

    def value(self, sql: str, **values: Any) -> Any:
        return one(self.engine, sql, **values)

    def unfinished(self) -> int:
        """Deliveries to admit, and jobs that neither succeeded nor died."""
        found: int = self.value(
            "SELECT (SELECT count(*) FROM unadmitted) + (SELECT count(*) FROM jobs"
            " WHERE state IN ('pending', 'running', 'retrying'))"
        )
        return found

    def wait_until_idle(self, *, timeout_s: float = 300) -> None:
        """Wait until everything has been worked on."""
        until(lambda: self.unfinished() == 0, what="all is worked on", timeout_s=timeout_s)

    def logs(self) -> str:
        """Everything that any process printed."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def close(self) -> None:
        """End every process."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.processes:
            try:
                process.wait(ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.engine.dispose()


def request(
    port: int,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    *,
    timeout_s: float = 300,
) -> Answer:
    """One request over a connection of its own."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        return _exchange(client, method, path, body, headers or {})
    finally:
        client.close()


def _exchange(
    client: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None,
    headers: dict[str, str],
) -> Answer:
    began = time.monotonic()
    client.request(method, path, body, headers)
    answered = client.getresponse()
    content = answered.read()
    return Answer(
        status=answered.status,
        headers={name.lower(): value for name, value in answered.getheaders()},
        body=content,
        seconds=time.monotonic() - began,
    )


def raw_exchange(port: int, request_bytes: bytes, *, timeout_s: float = 30) -> bytes:
    """Send bytes, read until the other side closes or says nothing more."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as client:
        client.sendall(request_bytes)
        answered = b""
        while chunk := _receive(client):
            answered += chunk
            head, _, rest = answered.partition(b"\r\n\r\n")
            length = next(
                (
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length:")
                ),
                None,
            )
            if length is not None and len(rest) >= length:
                break
        return answered


def _receive(client: socket.socket) -> bytes:
    try:
        return client.recv(65_536)
    except ConnectionError:
        return b""
