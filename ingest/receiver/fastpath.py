"""The fast path: answers deliveries that come whole past ASGI.

A task, three messages with their checks and two writes for each are a fifth of what a delivery
costs. Whatever else comes falls back to ASGI from its beginning. This file may be deleted: the
receiver works without it (`ingest.receiver.app` looks whether it is there).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from ingest.errors import IngestError, StorageUnavailable
from ingest.receiver import responses
from ingest.receiver.costly import BIG_BYTES
from ingest.receiver.decide import Refusal, Request, decide
from ingest.receiver.intake import Intake
from ingest.receiver.responses import Response
from ingest.receiver.server import BoundedHttp, Cycle
from ingest.sources.base import Answer, Headers, Source
from ingest.store.pipeline.deliveries import Delivery

_MAX_PIECES = 4
"""A body that comes in more goes through ASGI, where what is held of it is bounded."""


class RawResponse:
    """The answer, in one piece, to a request that came whole. uvicorn's protocol takes it for the
    cycle that runs: what follows on the connection waits for it."""

    __slots__ = ("_protocol", "client", "disconnected", "keep_alive", "response_complete")

    def __init__(self, protocol: "FastPathHttp") -> None:
        self._protocol = protocol
        self.client = protocol.client
        self.disconnected = False
        self.keep_alive = True
        self.response_complete = False

    def send(self, head: bytes, body: bytes) -> None:
        """Send status line, headers and body; `head` ends with its last header. To a sender that
        has hung up nothing is sent."""
        self.response_complete = True
        self._protocol.finish(head, body, keep_alive=self.keep_alive)

    def hang_up(self) -> None:
        """Close the connection; the sender sends its request again."""
        self.response_complete = True
        self._protocol.transport.close()

    @property
    def message_event(self) -> "RawResponse":
        """Return what uvicorn sets when the sender has hung up."""
        return self

    def set(self) -> None:
        """Ignore that the sender has hung up: the delivery is stored all the same."""


TryHandle = Callable[[Headers, bytes, RawResponse], bool]
"""Takes a request's headers and body, and answers it, now or later; or returns False and has done
nothing."""


class FastPath:
    """Decides on deliveries and answers them, as the endpoint does."""

    def __init__(self, intake: Intake, folder: str) -> None:
        """Handle what is posted to the sources' addresses below `folder`."""
        self._intake = intake
        self._handlers: dict[bytes, TryHandle] = {
            f"{folder}{slug}".encode(): partial(self.try_handle, slug, f"{folder}{slug}")
            for slug in intake.sources
        }

    def handler(self, method: bytes, target: bytes) -> TryHandle | None:
        """Return what handles such a request. None: it goes through ASGI."""
        return self._handlers.get(target) if method == b"POST" else None

    def try_handle(
        self, slug: str, target: str, headers: Headers, body: bytes, response: RawResponse
    ) -> bool:
        """Answer a delivery when it is committed, or refuse it if it is signed wrongly or cannot be
        stored. Return False for anything else."""
        source = self._intake.sources[slug]  # its secrets may have been replaced
        if len(body) > min(self._intake.body_limit(source), BIG_BYTES):
            return False
        request = self._intake.begin(slug, response.client, headers, target)
        settle = partial(self._settle, request, source, body, response)
        try:
            decision = decide(request, source, body)
            if isinstance(decision, Delivery):
                committed = self._intake.writer.submit(decision)
                committed.add_done_callback(lambda done: settle(done.exception(), decision.key_id))
            elif isinstance(decision, Refusal):
                settle(decision.error)
            else:
                return False
        except StorageUnavailable as error:
            settle(error)
        except Exception as bug:  # uvicorn would answer 400, which is final
            settle(bug)
        return True

    def _settle(
        self,
        request: Request,
        source: Source,
        body: bytes,
        response: RawResponse,
        error: BaseException | None,
        key_id: str = "",
    ) -> None:
        """Answer a request. An exception would be lost here, and the sender would wait."""
        try:
            if error is None:
                self._intake.count_answer(request, key_id)
                response.send(_ok_head(request, source.success), source.success.body)
                return
            if isinstance(error, IngestError):
                answer = self._intake.refuse(request, error, body)
            else:
                answer = self._intake.fail(error, request, body)
            response.send(_head(request, answer), answer.body)
        except Exception as bug:
            self._intake.fail(bug, request)
            response.hang_up()


def _ok_head(request: Request, answer: Answer) -> bytes:
    """Return the head of the answer to a delivery that was stored. It is put together by hand:
    nearly every answer has it."""
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\nx-request-id: %b\r\n" % (
        answer.content_type,
        len(answer.body),
        str(request.id).encode(),
    )


def _head(request: Request, response: Response) -> bytes:
    """Return an answer's status line and headers, as they are sent."""
    status = response.status
    lines = [b"%b: %b\r\n" % header for header in responses.headers(response, request.id)]
    return b"HTTP/1.1 %d %b\r\n%b" % (status, status.phrase.encode(), b"".join(lines))


class FastPathHttp(BoundedHttp):
    """The bounded protocol, which tries the fast path before ASGI."""

    _handler: TryHandle | None = None
    """What handles the request that is being read, if its body comes at once."""
    _pieces: list[bytes]

    def __init__(self, *args: Any, fast_path: FastPath, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fast_path = fast_path
        self._pieces = []

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the request that is being read."""
        self._handler = None
        super().connection_lost(exc)
        self._pieces = []

    def data_received(self, data: bytes) -> None:
        """Parse what came. Many clients write a head, then its body: a turn of the loop is left for
        the body to come."""
        super().data_received(data)
        if self._handler is not None:
            self.loop.call_soon(self.loop.call_soon, self._wait_no_more, self._pieces)

    def begin_request(self) -> None:
        """Begin a request; what ASGI is told of it is made if it goes that way."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._pieces = []

    def start_request(self) -> None:
        """Choose the way of a request whose head is whole."""
        if self._is_simple():
            self._handler = self._fast_path.handler(self.parser.get_method(), self.url)
        if self._handler is None:
            self.fall_back_to_asgi()

    def fall_back_to_asgi(self) -> None:
        """Let uvicorn have the request, as far as it has come."""
        self._handler = None
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().begin_request()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().start_request()
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            super().on_body(piece)

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body. What comes at once comes in few."""
        if self._handler is not None:
            if len(self._pieces) < _MAX_PIECES:
                self._silent_bytes = 0
                self._pieces.append(body)
                return
            self.fall_back_to_asgi()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Handle a request whose body is whole."""
        if self._handler is not None:
            self.end_message()
            if self._is_handled(self._handler):
                return
            self.fall_back_to_asgi()
        super().on_message_complete()

    def _is_handled(self, try_handle: TryHandle) -> bool:
        before: Cycle = self.cycle
        self._running = response = RawResponse(self)
        self.cycle = response  # type: ignore[assignment]  # it plays that part
        if try_handle(self.headers, b"".join(self._pieces), response):
            self._handler = None
            self._pieces = []  # an idle connection keeps no body
            return True
        self.cycle = before  # type: ignore[assignment]
        return False

    def finish(self, head: bytes, body: bytes, *, keep_alive: bool) -> None:
        """Write an answer in one piece, and go on."""
        if not self.transport.is_closing():
            more = b"".join(
                [b"%b: %b\r\n" % header for header in self.server_state.default_headers]
            )
            last = b"" if keep_alive else b"connection: close\r\n"
            self.transport.write(b"%b%b%b\r\n%b" % (head, more, last, body))
            if not keep_alive:
                self.transport.close()
        self.on_response_complete()

    def shutdown(self) -> None:
        """Answer what has begun to arrive, then close."""
        self._is_leaving = True
        if self._handler is not None:
            self.fall_back_to_asgi()
        super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP; hang up in the middle of a request, which may be sent better."""
        if self._handler is not None:
            self._handler = None
            self.transport.close()
        else:
            super().send_400_response(msg)

    def is_overdue(self, now: float) -> bool:
        """Return whether the sender has not sent in time what it has to."""
        return self._handler is None and super().is_overdue(now)

    def _wait_no_more(self, pieces: list[bytes]) -> None:
        if self._handler is not None and pieces is self._pieces:
            self.fall_back_to_asgi()

    def _is_simple(self) -> bool:
        """Return whether only the request is to be minded: no other before it, no slow reader, no
        connection to close, no body to ask for."""
        return (
            not self._is_busy
            and not self.is_last_request
            and not self.expect_100_continue
            and not self.parser.should_upgrade()
            and not self.flow.write_paused
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
        )


def protocol(intake: Intake, folder: str) -> Callable[..., FastPathHttp]:
    """Return what makes protocols that share a fast path to what is posted below `folder`."""
    return partial(FastPathHttp, fast_path=FastPath(intake, folder))
