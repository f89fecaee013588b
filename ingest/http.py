"""HTTP/1.1 between uvicorn and the receiver: bounds that uvicorn's protocol lacks, and a short way
for requests that come whole.

Anybody may connect, before any signature is looked at. So the head of a request is bounded in size
and time, and so is what may be sent ahead of its answers. (Measured without: one connection took
700 MB by pipelining, and 230 MB by a head without end.)

A breach is hung up on. An answer could be taken for that of a request before it, and a 4xx is
final: the sender would never send that event again.
"""

import re
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ingest.sources.source import Headers

HEAD_LIMIT = 64 * 1024
"""Bytes of a request line and its headers; nginx takes 32 KiB."""
HEAD_DEADLINE_S = 15.0
"""Seconds for a head to come, on a new connection or once it has begun."""
IDLE_LIMIT_S = 15.0
"""A connection on which nothing came for so long is closed, within as long again."""
PIPELINE_LIMIT = 64
"""Requests on one connection that may wait behind the one that is being answered."""

_FEW_PIECES = 4
"""A body that comes in more goes the long way, which bounds what of it is held."""

_UPGRADE = re.compile(rb"\r\nupgrade(?=[ \t]*:)", re.IGNORECASE)
_IGNORED = b"\r\nx-ignor"  # as long as what it replaces
_END_OF_HEAD = b"\r\n\r\n"


class Exchange:
    """A request that came whole, and its answer, which is one piece. For uvicorn's protocol it is
    the cycle that runs: what follows on the connection waits for it."""

    __slots__ = ("_protocol", "client", "disconnected", "keep_alive", "response_complete")

    def __init__(self, protocol: "BoundedHttp") -> None:
        self._protocol = protocol
        self.client = protocol.client
        self.disconnected = False
        self.keep_alive = True
        self.response_complete = False

    def answer(self, head: bytes, body: bytes) -> None:
        """Send status line, headers and body; `head` ends with its last header. Nobody hears it who
        has hung up."""
        self.response_complete = True
        self._protocol.finish(head, body, keep_alive=self.keep_alive)

    def hang_up(self) -> None:
        """Close the connection; the sender sends its request again."""
        self.response_complete = True
        self._protocol.transport.close()

    @property
    def message_event(self) -> "Exchange":
        """Whom uvicorn tells that the sender has hung up."""
        return self

    def set(self) -> None:
        """Be told that."""


Take = Callable[[Headers, bytes, Exchange], bool]
"""Takes a request's headers and body, and answers it, now or later; or returns False and has done
nothing."""


@runtime_checkable
class ShortWay(Protocol):
    """An application that takes some requests past ASGI. A task, three messages with their checks
    and two writes for each are a fifth of what a delivery costs."""

    def takes(self, method: bytes, target: bytes) -> Take | None:
        """What takes such a request; None: it goes the long way, through ASGI."""


class PipelineTooLong(Exception):
    """Raised into the parser, to make it stop."""


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol with bounds. It leans on that class's inner workings, so uvicorn is pinned
    to a minor version."""

    _running: RequestResponseCycle | Exchange | None = None
    _take: Take | None = None
    """What takes the request that is being read, if its body comes at once."""
    _pieces: list[bytes]

    def connection_made(self, transport: Any) -> None:
        """Wait for a head."""
        super().connection_made(transport)
        self._takes = self.app.takes if isinstance(self.app, ShortWay) else None
        self._in_head = True
        self._head_bytes = 0
        self._head_since = self._idle_since = self.loop.time()
        self._watch = self.loop.call_later(HEAD_DEADLINE_S, self._check_head)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that is being answered too; uvicorn tells the newest of a pipeline."""
        self._watch.cancel()
        self._take = None
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)
        self._running = self.cycle = None  # type: ignore[assignment]  # an exchange knows us
        self._pieces = []

    def data_received(self, data: bytes) -> None:
        """Parse what came, within the bounds."""
        if self._in_head:
            if not self._head_bytes:
                self._head_since = self.loop.time()
            self._head_bytes += len(data)
            data = _without_upgrade(data)
        super().data_received(data)
        if self._take is not None:
            # Many clients write a head, then its body: a turn of the loop is left for that to come.
            self.loop.call_soon(self.loop.call_soon, self._wait_no_more, self._pieces)
        if self._in_head and self._head_bytes > HEAD_LIMIT:
            self.transport.close()

    def on_message_begin(self) -> None:
        """Another request. What ASGI is told of it is made if it goes that way."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._pieces = []

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
        if self._takes is not None and self._is_plain():
            self._take = self._takes(self.parser.get_method(), self.url)
        if self._take is None:
            self._go_the_long_way()

    @property
    def _is_busy(self) -> bool:
        """Whether an answer is due on this connection."""
        return self._running is not None and not self._running.response_complete

    def _is_plain(self) -> bool:
        """Whether nothing is to be minded but the request: no other before it, no reader that is
        slow, no connection to close, no body to ask for."""
        return (
            not self._is_busy
            and not self.expect_100_continue
            and not self.parser.should_upgrade()
            and not self.flow.write_paused
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
        )

    def _go_the_long_way(self) -> None:
        """Let uvicorn have the request, as far as it has come."""
        self._take = None
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            super().on_body(piece)

    def _wait_no_more(self, pieces: list[bytes]) -> None:
        if self._take is not None and pieces is self._pieces:
            self._go_the_long_way()

    def shutdown(self) -> None:
        """Answer what has begun, then close."""
        if self._take is not None:
            self._go_the_long_way()
        super().shutdown()

    def on_body(self, body: bytes) -> None:
        """A piece of a body. What comes at once comes in few."""
        if self._take is not None and len(self._pieces) < _FEW_PIECES:
            self._pieces.append(body)
            return
        if self._take is not None:
            self._go_the_long_way()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is whole; what comes next is another head."""
        self._in_head = True
        if self._take is not None:
            if self._is_taken(self._take):
                return
            self._go_the_long_way()
        super().on_message_complete()

    def _is_taken(self, take: Take) -> bool:
        before = self.cycle
        self._running = exchange = Exchange(self)
        self.cycle = exchange  # type: ignore[assignment]  # it plays that part
        if take(self.headers, b"".join(self._pieces), exchange):
            self._take = None
            self._pieces = []  # an idle connection keeps no body
            return True
        self.cycle = before
        return False

    def finish(self, head: bytes, body: bytes, *, keep_alive: bool) -> None:
        """Write an answer in one piece, and go on."""
        if not self.transport.is_closing():
            more = b"".join([b"%b: %b\r\n" % each for each in self.server_state.default_headers])
            last = b"" if keep_alive else b"connection: close\r\n"
            self.transport.write(b"%b%b%b\r\n%b" % (head, more, last, body))
            if not keep_alive:
                self.transport.close()
        self.on_response_complete()

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
        """Refuse what is not HTTP, unless a request's answer is due first."""
        if self._is_busy or self._take is not None:
            self._take = None
            self.transport.close()
        else:
            super().send_400_response(msg)

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
        waits = self._in_head if begun else self._take is None and self.cycle.response_complete
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
