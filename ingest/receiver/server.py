"""HTTP/1.1 with bounds that uvicorn's protocol lacks.

Anybody may connect, before any signature is looked at. So whatever the parser takes without
giving any of it to the application is bounded in size and time: a head, the extensions of a chunk,
a trailer. So are a pipeline, an idle connection, what is sent after its request was answered, and
the time in which the sender takes its answers. Whoever reads a body bounds it. Connections and half
heads share a room among their addresses. (Measured without: one connection took 700 MB by
pipelining, 230 MB by a head without end, and 8 s of the event loop by a trailer of 90 MiB.)

The server closes a connection that breaks a bound. An answer could be taken for that of a request
before it, and a 4xx is final: the sender would never send that event again.
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
from typing import Any, Protocol, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ingest.receiver.client_shares import Share, Shares
from ingest.receiver.shutdown import Shutdown

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

_UPGRADE = re.compile(rb"\nupgrade:", re.IGNORECASE)
_UPGRADE_LENGTH = len(b"\nupgrade")
_IGNORED = b"-ignored"


class Cycle(Protocol):
    """A request and its answer, as far as uvicorn's protocol looks at them."""

    disconnected: bool
    keep_alive: bool
    response_complete: bool

    @property
    def message_event(self) -> "Event":
        """Return what is set when the sender has hung up."""


class Event(Protocol):
    """What can be set."""

    def set(self) -> None:
        """Wake whoever waits."""


def connection_shares(limit_bytes: int) -> Shares:
    """Return the room for connections and the heads that have come in part: `limit_bytes`, and no
    more connections than file descriptors."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return Shares(limit_bytes)
    connections = max(files - _OTHER_FILES, files // 2)
    return Shares(min(limit_bytes, connections * CONNECTION_BYTES))


def protocol(
    limit_bytes: int,
    make: "Callable[..., BoundedHttp] | None" = None,
    *,
    server_shutdown: Shutdown | None = None,
) -> type[asyncio.Protocol]:
    """Return what uvicorn makes its protocols with: `make`, else `BoundedHttp`, with a room of
    `limit_bytes` for all connections. Once `server_shutdown` has begun, answers close theirs."""
    made = partial(
        make or BoundedHttp,
        shares=connection_shares(limit_bytes),
        server_shutdown=server_shutdown or Shutdown(),
    )
    return cast("type[asyncio.Protocol]", made)  # only called


class PipelineTooLong(Exception):
    """Raised into the parser, to make it stop."""


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol with bounds. This class relies on how that one works inside, so uvicorn is
    pinned to a minor version."""

    _running: Cycle | None = None
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

    def __init__(
        self,
        *args: Any,
        shares: Shares | None = None,
        server_shutdown: Shutdown | None = None,
        **kwargs: Any,
    ) -> None:
        """Make what speaks with one client; all share the room of `shares`."""
        super().__init__(*args, **kwargs)
        self._shares = shares
        self._server_shutdown = server_shutdown or Shutdown()

    def connection_made(self, transport: Any) -> None:
        """Wait for a head."""
        super().connection_made(transport)
        if self._shares is not None:
            self._share = self._shares.begin(self.client[0] if self.client else "", self._give_up)
            self._share.hold(CONNECTION_BYTES)
        self._in_head = True
        self._head_since = self._idle_since = self.loop.time()
        self._watch = self.loop.call_later(CHECK_INTERVAL_S, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that is being answered; uvicorn tells only the newest of a pipeline."""
        self._watch.cancel()
        if self._share is not None:
            self._share.end()
        self._share = None  # it knows us
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)
        self._running = self.cycle = None  # type: ignore[assignment]  # a cycle knows us

    def data_received(self, data: bytes) -> None:
        """Parse what came, within the bounds."""
        self._silent_bytes += len(data)
        stream = self._tail + data if self._tail else data
        if b"\nupgrade:" in stream.lower():
            self._feed_without_upgrade(stream, len(self._tail))
        else:
            super().data_received(data)
        self._tail = stream[-_UPGRADE_LENGTH:] if self._has_begun else b""
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
        """Give the parser `stream` from `fed` on, with each offer of another protocol renamed.

        A server may ignore such an offer (RFC 9110, 7.8). The parser cannot: it would take the body
        for the other protocol. Java's HttpClient makes the offer with every request over plain
        HTTP. Where such a line begins, the parser itself says whether it is in a head or a body."""
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
        """Keep the connection of a sender that only waits for its answer. Close any other: the
        sender has hung up in the middle of its request, or of a stream that it reads."""
        self._has_ended = True
        return self._is_busy and self._in_head and not self._has_begun and not self._streams

    def on_message_begin(self) -> None:
        """Begin another request."""
        self._has_begun = True
        self._head_since = self.loop.time()
        self.begin_request()

    def begin_request(self) -> None:
        """Make what ASGI is told of a request."""
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header of the head, as uvicorn does; what trails a body signs nothing. White space
        around a value is not part of it (RFC 9110, 5.5)."""
        if self._in_head:
            name, value = name.lower(), value.strip(b" \t")
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """End a head that is whole.

        Raises:
            PipelineTooLong: too many requests wait behind another.
        """
        self._in_head = self._has_begun = False
        self._silent_bytes = self._dropped_bytes = 0
        if len(self.pipeline) >= PIPELINE_LIMIT:
            raise PipelineTooLong
        self.start_request()

    def start_request(self) -> None:
        """Give ASGI the request, whose head is whole."""
        super().on_headers_complete()
        if self.is_last_request:
            self.cycle.keep_alive = False

    @property
    def is_last_request(self) -> bool:
        """Return whether the connection is to be closed after the answer."""
        return self._is_leaving or self._server_shutdown.has_begun

    @property
    def _is_busy(self) -> bool:
        """Return whether an answer is due on this connection."""
        return self._running is not None and not self._running.response_complete

    @property
    def _streams(self) -> bool:
        """Return whether an answer has begun, and not ended."""
        running = self._running
        return isinstance(running, RequestResponseCycle) and running.response_started

    def shutdown(self) -> None:
        """Answer what has begun to arrive, then close."""
        self._is_leaving = True
        if self._is_busy or not (self._has_begun or self._has_unread()):
            super().shutdown()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._silent_bytes = 0
        if self.cycle.response_complete:
            self._dropped_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request whose body is whole."""
        self.end_message()
        super().on_message_complete()

    def end_message(self) -> None:
        """Note that what comes next is another head."""
        self._in_head = True
        self._silent_bytes = 0

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
        if self._is_busy:
            self.transport.close()
        else:
            super().send_400_response(msg)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _unsupported_upgrade_warning(self) -> None:
        """Close: the parser takes what follows for another protocol, whose offer was missed."""
        self.transport.close()

    def resume_writing(self) -> None:
        """Note that the sender has taken most of what waited."""
        self._unsent_since = None
        super().resume_writing()

    def _check(self) -> None:
        """Close a connection that has passed a deadline, now and then."""
        now = self.loop.time()
        if self._is_unread(now):
            self.transport.abort()
            return
        if self.is_overdue(now):
            self.transport.close()
        # A closed one waits for what it has still to write.
        self._watch = self.loop.call_later(CHECK_INTERVAL_S, self._check)

    def _is_unread(self, now: float) -> bool:
        """Return whether the sender has not taken its answers in time."""
        if not self.transport.get_write_buffer_size():
            self._unsent_since = None
        elif self._unsent_since is None:
            self._unsent_since = now
        return self._unsent_since is not None and now - self._unsent_since >= WRITE_DEADLINE_S

    def is_overdue(self, now: float) -> bool:
        """Return whether the sender has not sent in time what it has to."""
        if self._is_busy:
            return False
        if self._has_begun:
            return now - self._head_since >= HEAD_DEADLINE_S
        if not self._in_head:  # answered before its body was whole, which it may never be
            return now - self._idle_since >= HEAD_DEADLINE_S
        has_asked = self.cycle is not None
        limit = self.timeout_keep_alive if has_asked else HEAD_DEADLINE_S
        return now - self._idle_since >= limit and not self._has_unread()

    def _has_unread(self) -> bool:
        """Return whether bytes have arrived that are yet to be read: the connection is not idle."""
        waiting = array.array("i", [0])
        try:
            fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.FIONREAD, waiting)
        except (AttributeError, OSError, ValueError):  # closed meanwhile
            return False
        return waiting[0] > 0
