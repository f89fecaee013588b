"""HTTP/1.1 between uvicorn and the receiver: bounds that uvicorn's protocol lacks.

Anybody may connect, before any signature is looked at. So the head of a request is bounded in size
and time, and so is what may be sent ahead of its answers. (Measured without: one connection took
700 MB by pipelining, and 230 MB by a head without end.)

A breach is hung up on. An answer could be taken for that of a request before it, and a 4xx is
final: the sender would never send that event again.
"""

import re
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEAD_LIMIT = 64 * 1024
"""Bytes of a request line and its headers; nginx takes 32 KiB."""
HEAD_DEADLINE_S = 15.0
"""Seconds for a head to come, on a new connection or once it has begun."""
PIPELINE_LIMIT = 64
"""Requests on one connection that may wait behind the one that is being answered."""

_UPGRADE = re.compile(rb"\r\nupgrade(?=[ \t]*:)", re.IGNORECASE)
_IGNORED = b"\r\nx-ignor"  # as long as what it replaces
_END_OF_HEAD = b"\r\n\r\n"


class PipelineTooLong(Exception):
    """Raised into the parser, to make it stop."""


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol with bounds. It leans on that class's inner workings, so uvicorn is pinned
    to a minor version."""

    _running: RequestResponseCycle | None = None

    def connection_made(self, transport: Any) -> None:
        """Wait for a head."""
        super().connection_made(transport)
        self._in_head = True
        self._head_bytes = 0
        self._head_since = self.loop.time()
        self._watch = self.loop.call_later(HEAD_DEADLINE_S, self._check_head)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that is being answered too; uvicorn tells the newest of a pipeline."""
        self._watch.cancel()
        running = self._running
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, within the bounds."""
        if self._in_head:
            if not self._head_bytes:
                self._head_since = self.loop.time()
            self._head_bytes += len(data)
            data = _without_upgrade(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > HEAD_LIMIT:
            self.transport.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Headers of the head only: what trails a body signs nothing."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole.

        Raises:
            PipelineTooLong: too many requests wait behind another.
        """
        self._in_head = False
        self._head_bytes = 0
        if len(self.pipeline) >= PIPELINE_LIMIT:
            raise PipelineTooLong
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is whole; what comes next is another head."""
        super().on_message_complete()
        self._in_head = True

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, unless another request's answer is due first."""
        if self._running is None or self._running.response_complete:
            super().send_400_response(msg)
        else:
            self.transport.close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _unsupported_upgrade_warning(self) -> None:
        """The parser takes what follows for another protocol. `_without_upgrade` has missed it."""
        self.transport.close()

    def _check_head(self) -> None:
        waits = self._in_head and (self._head_bytes > 0 or self.cycle is None)
        if waits and self.loop.time() - self._head_since >= HEAD_DEADLINE_S:
            self.transport.close()
        else:
            self._watch = self.loop.call_later(HEAD_DEADLINE_S, self._check_head)


def _without_upgrade(data: bytes) -> bytes:
    """`data` with its first head's offer to speak another protocol made unreadable, as a server may
    ignore it (RFC 9110, 7.8). The parser cannot: it would take the body for the other protocol.
    Java's HttpClient makes the offer with every request over plain HTTP."""
    if b"pgrade" not in data and b"PGRADE" not in data:
        return data
    end = data.find(_END_OF_HEAD)
    head, rest = (data, b"") if end < 0 else (data[:end], data[end:])
    return _UPGRADE.sub(_IGNORED, head) + rest
