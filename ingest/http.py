"""HTTP/1.1 between uvicorn and the receiver: bounds that uvicorn's protocol lacks, and a short way
for requests that come whole.

Anybody may connect, before any signature is looked at. So whatever the parser takes without
giving any of it to the application is bounded in size and time: a head, the extensions of a chunk,
a trailer. So are a pipeline, an idle connection, what is sent after its request was answered, and
the time in which the sender takes its answers. A body is bounded by who reads it. What connections
and half heads hold together is shared among addresses. (Measured
without: one connection took 700 MB by pipelining, 230 MB by a head without end, and 8 s of the
event loop by a trailer of 90 MiB.)

A breach is hung up on. An answer could be taken for that of a request before it, and a 4xx is
final: the sender would never send that event again.
"""

import array
import asyncio
import fcntl
import re
import resource
import termios
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any, Protocol, cast, runtime_checkable

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ingest.client_shares import Share, Shares
from ingest.sources.source import Headers

HEAD_LIMIT = 64 * 1024
"""Bytes that the parser takes without any of a body among them: a request line with its headers
(nginx takes 32 KiB), the extensions of a chunk, a trailer."""
HEAD_DEADLINE_S = 15.0
"""Seconds for a head to come, on a new connection or once it has begun, and for the rest of a body
whose request was answered already."""
WRITE_DEADLINE_S = 30.0
"""Seconds in which a sender takes what waits to be written to it (64 KiB or one answer)."""
CHECK_INTERVAL_S = 5.0
"""The deadlines above, and that of an idle connection, are looked at so often."""
DROP_LIMIT = 4 * 1024 * 1024
"""Bytes of a body that may still come after its request was answered."""
PIPELINE_LIMIT = 64
"""Requests on one connection that may wait behind the one that is being answered."""
CONNECTION_BYTES = 8 * 1024
"""What a connection holds that says nothing (7 KiB measured)."""
_HEADER_BYTES = 160
"""What a header holds beside its text."""
_OTHER_FILES = 100
"""File descriptors that are not for connections; at most half of all."""

_FEW_PIECES = 4
"""A body that comes in more goes the long way, which bounds what of it is held."""

_UPGRADE = re.compile(rb"\nupgrade:", re.IGNORECASE)
_UPGRADE_LENGTH = len(b"\nupgrade")
_IGNORED = b"-ignored"


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


def connection_shares(limit_bytes: int) -> Shares:
    """Return the room for connections and the heads that have come in part: `limit_bytes`, and no
    more connections than file descriptors."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return Shares(limit_bytes)
    connections = max(files - _OTHER_FILES, files // 2)
    return Shares(min(limit_bytes, connections * CONNECTION_BYTES))


def protocol(limit_bytes: int) -> type[asyncio.Protocol]:
    """Return what uvicorn makes its protocols with: `BoundedHttp`, with a room of `limit_bytes` for
    all of them."""
    shares = connection_shares(limit_bytes)
    return cast("type[asyncio.Protocol]", partial(BoundedHttp, shares=shares))  # only called


class PipelineTooLong(Exception):
    """Raised into the parser, to make it stop."""


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol with bounds. It leans on that class's inner workings, so uvicorn is pinned
    to a minor version."""

    _running: RequestResponseCycle | Exchange | None = None
    _take: Take | None = None
    """What takes the request that is being read, if its body comes at once."""
    _pieces: list[bytes]
    _tail = b""
    """The last bytes of a head that has not ended."""
    _has_begun = False
    """Whether a head has begun, and not ended."""
    _silent_bytes = 0
    """What the parser took since a head ended or a piece of a body was seen."""
    _dropped_bytes = 0
    """Of the body whose request was answered before it was whole."""
    _has_ended = False
    """The sender writes nothing more."""
    _is_leaving = False
    """The server shuts down: the request that has begun is the last."""
    _unsent_since: float | None = None
    """Since when something has waited to be written; None: the sender takes its answers."""
    _share: Share | None = None
    """Of the room for connections and half heads."""

    def __init__(self, *args: Any, shares: Shares | None = None, **kwargs: Any) -> None:
        """Make what speaks with one client; all share the room of `shares`."""
        super().__init__(*args, **kwargs)
        self._shares = shares

    def connection_made(self, transport: Any) -> None:
        """Wait for a head."""
        super().connection_made(transport)
        if self._shares is not None:
            self._share = self._shares.begin(self.client[0] if self.client else "", self._give_up)
            self._share.hold(CONNECTION_BYTES)
        self._takes = self.app.takes if isinstance(self.app, ShortWay) else None
        self._in_head = True
        self._head_since = self._idle_since = self.loop.time()
        self._watch = self.loop.call_later(CHECK_INTERVAL_S, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that is being answered too; uvicorn tells the newest of a pipeline."""
        self._watch.cancel()
        if self._share is not None:
            self._share.end()
        self._share = None  # it knows us
        self._take = None
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)
        self._running = self.cycle = None  # type: ignore[assignment]  # an exchange knows us
        self._pieces = []

    def data_received(self, data: bytes) -> None:
        """Parse what came, within the bounds."""
        self._silent_bytes += len(data)
        stream = self._tail + data if self._tail else data
        if b"\nupgrade:" in stream.lower():
            self._feed_without_upgrade(stream, len(self._tail))
        else:
            super().data_received(data)
        self._tail = stream[-_UPGRADE_LENGTH:] if self._has_begun else b""
        if self._take is not None:
            # Many clients write a head, then its body: a turn of the loop is left for that to come.
            self.loop.call_soon(self.loop.call_soon, self._wait_no_more, self._pieces)
        if self._silent_bytes > HEAD_LIMIT or self._dropped_bytes > DROP_LIMIT:
            self.transport.close()
        if self._share is not None and (self._has_begun or self._share.size > CONNECTION_BYTES):
            self._share.hold(CONNECTION_BYTES + self._head_bytes(len(data)))

    def _head_bytes(self, read: int) -> int:
        """Return what is held of a head that has come in part, `read` bytes the last time. All of
        these may be the head's; the parser does not say."""
        if not self._has_begun:
            return 0
        return max(self._silent_bytes, read) + _HEADER_BYTES * len(self.headers)

    def _give_up(self) -> None:
        """Make room for other clients: close, after the answer that is due."""
        if self._is_busy and self._in_head and not self._streams:
            self._is_leaving = True
            super().shutdown()
        else:
            self.transport.close()

    def _feed_without_upgrade(self, stream: bytes, fed: int) -> None:
        """Give the parser `stream` from `fed` on, with each offer of another protocol renamed, as a
        server may ignore it (RFC 9110, 7.8). The parser cannot: it would take the body for the
        other protocol. Java's HttpClient makes the offer with every request over plain HTTP.

        The parser itself tells heads from bodies: it is asked where each such line begins."""
        for match in islice(_UPGRADE.finditer(stream), PIPELINE_LIMIT):
            line, colon = match.start() + 1, match.end() - 1
            if line > fed:
                super().data_received(stream[fed:line])
                fed = line
            if self._in_head and not self.transport.is_closing():
                super().data_received(stream[fed:colon] + _IGNORED)
                fed = colon
        if not self.transport.is_closing():
            super().data_received(stream[fed:])

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio heeds what it returns
        """Keep the connection of a sender that only waits for its answer; close any other, that of
        one that has hung up in the middle of its request or of a stream that it reads included."""
        self._has_ended = True
        return self._is_busy and self._in_head and not self._has_begun and not self._streams

    def on_message_begin(self) -> None:
        """Another request. What ASGI is told of it is made if it goes that way."""
        self._has_begun = True
        self._head_since = self.loop.time()
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._pieces = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Headers of the head only: what trails a body signs nothing. White space around a value is
        no part of it (RFC 9110, 5.5); the parser removes what leads."""
        if self._in_head:
            super().on_header(name, value.strip(b" \t"))

    def on_headers_complete(self) -> None:
        """The head is whole.

        Raises:
            PipelineTooLong: too many requests wait behind another.
        """
        self._in_head = self._has_begun = False
        self._silent_bytes = self._dropped_bytes = 0
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

    @property
    def _streams(self) -> bool:
        """Whether an answer has begun, and not ended."""
        running = self._running
        return isinstance(running, RequestResponseCycle) and running.response_started

    def _is_plain(self) -> bool:
        """Whether nothing is to be minded but the request: no other before it, no reader that is
        slow, no connection to close, no body to ask for."""
        return (
            not self._is_busy
            and not self._is_leaving
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
        if self._is_leaving:
            self.cycle.keep_alive = False
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            super().on_body(piece)

    def _wait_no_more(self, pieces: list[bytes]) -> None:
        if self._take is not None and pieces is self._pieces:
            self._go_the_long_way()

    def shutdown(self) -> None:
        """Answer what has begun to arrive, then close."""
        self._is_leaving = True
        if self._take is not None:
            self._go_the_long_way()
        if self._is_busy or not (self._has_begun or self._has_unread()):
            super().shutdown()

    def on_body(self, body: bytes) -> None:
        """A piece of a body. What comes at once comes in few."""
        self._silent_bytes = 0
        if self._take is not None and len(self._pieces) < _FEW_PIECES:
            self._pieces.append(body)
            return
        if self._take is not None:
            self._go_the_long_way()
        if self.cycle.response_complete:
            self._dropped_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is whole; what comes next is another head."""
        self._in_head = True
        self._silent_bytes = 0
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
        cancels it with the next request, a twentieth of an answer; `_check` looks instead."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._has_ended:
            self.transport.close()
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
        """The parser takes what follows for another protocol: an offer was missed."""
        self.transport.close()

    def resume_writing(self) -> None:
        """The sender has taken most of what waited."""
        self._unsent_since = None
        super().resume_writing()

    def _check(self) -> None:
        """Close a connection that has passed a deadline, now and then."""
        now = self.loop.time()
        if self._is_unread(now):
            self.transport.abort()
            return
        if self._is_overdue(now):
            self.transport.close()
        # A closed one waits for what it has still to write.
        self._watch = self.loop.call_later(CHECK_INTERVAL_S, self._check)

    def _is_unread(self, now: float) -> bool:
        """Whether the sender has not taken its answers in time."""
        if not self.transport.get_write_buffer_size():
            self._unsent_since = None
        elif self._unsent_since is None:
            self._unsent_since = now
        return self._unsent_since is not None and now - self._unsent_since >= WRITE_DEADLINE_S

    def _is_overdue(self, now: float) -> bool:
        """Whether the sender has not sent in time what it has to."""
        if self._is_busy or self._take is not None:
            return False
        if self._has_begun:
            return now - self._head_since >= HEAD_DEADLINE_S
        if not self._in_head:  # answered before its body was whole, which it may never be
            return now - self._idle_since >= HEAD_DEADLINE_S
        has_asked = self.cycle is not None
        limit = self.timeout_keep_alive if has_asked else HEAD_DEADLINE_S
        return now - self._idle_since >= limit and not self._has_unread()

    def _has_unread(self) -> bool:
        """Whether bytes have arrived that nobody has read yet: then it is no longer idle."""
        waiting = array.array("i", [0])
        try:
            fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.FIONREAD, waiting)
        except (AttributeError, OSError, ValueError):  # closed meanwhile
            return False
        return waiting[0] > 0
