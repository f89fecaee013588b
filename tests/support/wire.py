"""HTTP by hand: requests that no client library would send, and their answers as they come."""

import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.support.signing import signed_headers

POST = b"POST /webhooks/awalchat HTTP/1.1"


@dataclass(frozen=True)
class Reply:
    """One answer as it stood on the wire."""

    status: int
    headers: dict[str, str]
    body: bytes


class Wire:
    """A connection on which anything may be written. Whatever takes longer than its deadline
    fails the test: nothing that is sent here may hang."""

    def __init__(
        self,
        port: int,
        *,
        deadline_s: float = 60,
        receives: int | None = None,
        source: str = "127.0.0.1",
    ) -> None:
        """`receives`: bytes that this side's kernel takes before the other side's writing stops.
        `source`: the address that the connection comes from."""
        self._socket = socket.socket()
        self._socket.bind((source, 0))
        self._socket.settimeout(deadline_s)
        if receives is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
        self._socket.connect(("127.0.0.1", port))
        self._deadline_s = deadline_s
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(self, raw: bytes) -> bool:
        """Whether all of it could be written before the other side closed."""
        try:
            self._socket.sendall(raw)
        except ConnectionError:
            return False
        return True

    def end(self) -> None:
        """Say that nothing more comes."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:  # the other side was quicker
            return

    def reset(self) -> None:
        """Hang up in the rudest way: the other side's next write or read fails."""
        linger_0 = struct.pack("ii", 1, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_0)
        self._socket.close()

    def reply(self) -> Reply | None:
        """The next final answer, or None when the connection ends first."""
        ends = time.monotonic() + self._deadline_s
        while (found := self._parse()) is None or found.status < 200:
            if found is None and not self._receive(ends):
                return None
        return found

    def replies(self, count: int) -> list[Reply]:
        """The next answers, fewer only when the connection ends first."""
        found: list[Reply] = []
        while len(found) < count and (reply := self.reply()) is not None:
            found.append(reply)
        return found

    def is_closed(self) -> bool:
        """Wait until the other side closes; False if it answers something first."""
        return not self._buffer and not self._receive(time.monotonic() + self._deadline_s)

    def _parse(self) -> Reply | None:
        """Take one whole answer off the buffer."""
        top, ended, rest = self._buffer.partition(b"\r\n\r\n")
        if not ended:
            return None
        first, *lines = top.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            return None
        self._buffer = rest[length:]
        return Reply(int(first.split()[1]), headers, rest[:length])

    def _receive(self, ends: float) -> bool:
        assert time.monotonic() < ends, f"no whole answer: {self._buffer[:200]!r}"
        try:
            chunk = self._socket.recv(65_536)
        except ConnectionError:
            return False
        self._buffer += chunk
        return bool(chunk)


def head(*lines: bytes, start: bytes = POST) -> bytes:
    """A request's head, with the header lines as they are given."""
    return b"\r\n".join([start, b"Host: x", *lines, b"", b""])


def signature(body: bytes) -> list[bytes]:
    """The header lines that sign `body`."""
    return [f"{name}: {value}".encode() for name, value in signed_headers(body).items()]


def length(body: bytes) -> bytes:
    return b"Content-Length: %d" % len(body)


def signed(body: bytes) -> bytes:
    """A whole request, as it should be."""
    return head(*signature(body), length(body)) + body


def chunked(pieces: Iterable[bytes]) -> bytes:
    """A body in these chunks."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece) + (
        b"0\r\n\r\n"
    )
