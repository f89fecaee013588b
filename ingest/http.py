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
IDLE_LIMIT_S = 15.0
"""A connection on which nothing came for so long is closed, within as long again."""
PIPELINE_LIMIT = 64
"""Requests on one connection that may wait behind the one that is being answered."""

_UPGRADE = re.compile(rb"\r\nupgrade(?=[ \t]*:)", re.IGNORECASE)
_IGNORED = b"\r\nx-ignor"  # as long as what it replaces
_END_OF_HEAD = b"\r\n\r\n"


WHOLE = "ingest.whole"
"""The ASGI extension under which a request's `Whole` is found."""


class Whole:
    """A short way to a body that has come whole and for an answer that is one piece: what ASGI does
    in three steps with a timer and two writes is a fifth of a delivery's time."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    def body(self) -> bytes | None:
        """The whole body, if it is here already."""
        cycle = self._cycle
        if cycle.more_body or cycle.disconnected:
            return None
        body, cycle.body = cycle.body, bytearray()
        cycle.message_event.clear()
        return bytes(body)

    def answer(self, head: bytes, body: bytes) -> bool:
        """Send status line, headers and body; False when this request needs the long way (its
        connection is to be closed, or its reader is slow). `head` ends with its last header."""
        cycle = self._cycle
        if (
            not cycle.keep_alive
            or cycle.response_started
            or cycle.disconnected
            or cycle.flow.write_paused
        ):
            return False
        cycle.response_started = cycle.response_complete = True
        date = b"".join([b"%b: %b\r\n" % header for header in cycle.default_headers])
        cycle.transport.write(b"%b%b\r\n%b" % (head, date, body))
        cycle.message_event.set()
        cycle.on_response()
        return True


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
        self._head_since = self._idle_since = self.loop.time()
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
        extensions: dict[str, Any] = {WHOLE: Whole(self.cycle)}
        self.cycle.scope["extensions"] = extensions

    def on_message_complete(self) -> None:
        """The body is whole; what comes next is another head."""
        super().on_message_complete()
        self._in_head = True

    def on_response_complete(self) -> None:
        """Go on with the next request, or be idle. uvicorn sets a timer for each idle time and
        cancels it with the next request, a twentieth of an answer; `_check_head` looks instead."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._idle_since = self.loop.time()

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
        now = self.loop.time()
        begun = self._head_bytes > 0 or self.cycle is None
        since = self._head_since if begun else self._idle_since
        # Answered before its body was whole, a request may never be: that is idle too.
        waits = self._in_head if begun else self.cycle.response_complete
        if waits and now - since >= (HEAD_DEADLINE_S if begun else IDLE_LIMIT_S):
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
