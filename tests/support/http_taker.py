"""An HTTP server that stands in for whoever takes messages."""

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Taker(ThreadingHTTPServer):
    """An HTTP server that keeps what is posted, and answers as the test says."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.answer = 200, b"ok"
        self.headers: dict[str, str] = {}
        self.raw: bytes | None = None
        """What is sent instead, as it is; then the connection is closed."""
        self.stays_open = False
        """Whether that connection is kept until the end."""
        self.free = threading.Event()
        """While it is clear, requests are kept waiting."""
        self.free.set()
        self.ended = threading.Event()
        self.taken: list[tuple[dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/services/T0/SECRET"


class _Handler(BaseHTTPRequestHandler):
    server: Taker

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.taken.append((headers, body))
        self.server.free.wait(600)
        with contextlib.suppress(ConnectionError):  # who posted waits no longer
            self._answer()

    def _answer(self) -> None:
        if self.server.raw is not None:
            self.wfile.write(self.server.raw)
            if self.server.stays_open:
                self.server.ended.wait(600)
            return
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(self.server.answer)))
        self.end_headers()
        self.wfile.write(self.server.answer)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def running() -> Iterator[Taker]:
    """A server that takes until the end."""
    with Taker() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.free.set()
            server.ended.set()
            server.shutdown()
            thread.join()
