"""The receiver: the ASGI endpoint that limits, verifies, opens, stores and answers.

Raw ASGI, because Starlette's Request and Response halved the throughput (11,700 against 25,600
requests a second, one process, body and HMAC included). Most deliveries come whole and have nothing
wrong with them: `take` answers those past ASGI too (ingest.http), a fifth more.
"""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Any
from uuid import UUID

from starlette.types import Receive, Scope, Send

from ingest import telemetry
from ingest.client_shares import PartialBody, Shares, too_many
from ingest.errors import (
    BodyTooLarge,
    BodyTooSlow,
    IngestError,
    InvalidEnvelope,
    InvalidSignature,
    StorageUnavailable,
    TooManyBodies,
    UnknownSource,
)
from ingest.http import Exchange
from ingest.ids import RANDOM_BYTES, delivery_id
from ingest.naming import Namer, is_costly, name_body
from ingest.refused import Refused
from ingest.sources.source import EventName, Headers, Source
from ingest.store.deliveries import Delivery
from ingest.tally import Tally
from ingest.text import storable
from ingest.writer import DeliveryWriter

STATUSES: Mapping[type[IngestError], HTTPStatus] = {
    InvalidEnvelope: HTTPStatus.BAD_REQUEST,
    InvalidSignature: HTTPStatus.UNAUTHORIZED,
    UnknownSource: HTTPStatus.NOT_FOUND,
    BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    BodyTooSlow: HTTPStatus.SERVICE_UNAVAILABLE,
    TooManyBodies: HTTPStatus.SERVICE_UNAVAILABLE,
    StorageUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}
# The body was not read to its end, so the connection cannot carry another request.
_CLOSING = (BodyTooSlow, BodyTooLarge, TooManyBodies)
# Closing on a sender that is still writing resets the connection, and it never sees its 413. So
# its body is read on, and dropped, for a while: at most a body's bytes more, and these seconds.
_LINGER_S = 2.0

_RECEIVED = b'{"received": true}'
_HEADER_VALUE_LIMIT = 500
_PLAIN = re.compile(rb"[ !#-\[\]-~]{0,%d}" % _HEADER_VALUE_LIMIT)
"""Printable ASCII, but for the quote and the backslash, within the limit."""
_LOG_INTERVAL_S = 1.0

log = telemetry.logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What bounds a request."""

    body_bytes: int
    partial_bytes: int
    """Of all bodies together that have come in part."""
    waiting_bytes: int
    """Of all bodies together that wait to be named off the event loop."""
    body_deadline_s: float
    retry_after_s: int


class Receiver:
    """`POST /webhooks/{source}`."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        writer: DeliveryWriter,
        limits: Limits,
        *,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
        tally: Tally | None = None,
        refused: Refused | None = None,
    ) -> None:
        """`clock` gives Unix time in seconds, `random` that many random bytes; what is answered is
        counted in `tally`, what is refused noted in `refused`."""
        self._sources = sources
        self._writer = writer
        self._limits = limits
        self._clock = clock
        self._random = random
        self._tally = tally or Tally()
        self._refused = refused or Refused(self._tally)
        self._shares = Shares(limits.partial_bytes)
        self._logged = telemetry.Sampler(interval_s=_LOG_INTERVAL_S, clock=time.monotonic)
        self._namer = Namer(waiting_bytes=limits.waiting_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, whatever it is."""
        now = self._clock()
        request_id = self._request_id(now)
        slug: str = scope["path_params"]["source"]
        try:
            body = await self._answer(slug, scope, receive, now, request_id)
        except _Disconnected:
            if self._logged.lets_through("sender_disconnected"):
                log.debug(
                    "sender_disconnected",
                    request_id=str(request_id),
                    left_out=self._logged.left_out("sender_disconnected"),
                )
        except IngestError as error:
            self._note_refusal(error, slug, scope.get("client"), scope["headers"], now, request_id)
            await self._refuse(scope, receive, send, error, request_id)
        except Exception as error:
            self._note_fault(error, request_id)
            await respond(send, *fault(request_id), request_id)
        else:
            await respond(send, HTTPStatus.OK, body, request_id)

    def take(self, slug: str, headers: Headers, body: bytes, exchange: Exchange) -> bool:
        """Take a delivery that came whole, and answer it when it is committed, or refuse it if it
        is signed wrongly or cannot be stored. False: something else is to be said of it, which
        `__call__` does."""
        now = self._clock()
        request_id = self._request_id(now)
        source = self._sources[slug]
        settle = partial(self._settle, exchange, slug, headers, now, request_id)
        if len(body) > self._limits.body_bytes or is_costly(body):
            return False
        try:
            key_id = source.verify(headers, body, now=int(now))
            name = name_body(source, body)
            delivery = _delivery(request_id, source, now, key_id, headers, body, name)
            committed = self._writer.submit(delivery)
        except StorageUnavailable as error:
            settle(error)
        except InvalidSignature as error:
            if not source.is_signed(headers):
                return False
            settle(error)
        except Exception:
            return False
        else:
            committed.add_done_callback(lambda done: settle(done.exception()))
        return True

    def _settle(
        self,
        exchange: Exchange,
        slug: str,
        headers: Headers,
        now: float,
        request_id: UUID,
        error: BaseException | None,
    ) -> None:
        """Answer what was taken. Nobody hears of an exception here, so there must be none."""
        try:
            if error is None:
                self._tally.answered(self._clock() - now)
                exchange.answer(_ok_head(_RECEIVED, request_id), _RECEIVED)
                return
            more: list[tuple[bytes, bytes]] = []
            if isinstance(error, IngestError):
                self._note_refusal(error, slug, exchange.client, headers, now, request_id)
                status, more, body = self._refusal(error, request_id)
            else:
                self._note_fault(error, request_id)
                status, body = fault(request_id)
            exchange.answer(_head(status, [*_headers(body, request_id), *more]), body)
        except Exception as bug:
            self._note_fault(bug, request_id)
            exchange.hang_up()

    def _request_id(self, now: float) -> UUID:
        return delivery_id(int(now * 1000), self._random(RANDOM_BYTES))

    async def _answer(
        self, slug: str, scope: Scope, receive: Receive, now: float, request_id: UUID
    ) -> bytes:
        """The body of a 200; every other answer is an exception."""
        source = self._sources.get(slug)
        if source is None:
            raise UnknownSource("No such source.", reason="unknown_source")
        headers: Headers = scope["headers"]
        body = await self._read(scope, receive)
        if not source.is_signed(headers):
            return _shake_hands(source, body)
        key_id = source.verify(headers, body, now=int(now))
        rejection = None
        name = None
        try:
            name = await self._name(source, body)
        except InvalidEnvelope as error:
            answer = source.handshake(body)
            if answer is not None:
                return answer
            rejection = error
        await self._writer.append(
            _delivery(request_id, source, now, key_id, headers, body, name, rejection)
        )
        if rejection is not None:
            raise rejection
        self._tally.answered(self._clock() - now)
        return _RECEIVED

    async def _name(self, source: Source, body: bytes) -> EventName:
        """Name a verified body; a costly one does not hold the event loop meanwhile."""
        if is_costly(body):
            return await self._namer.name(source, body)
        return name_body(source, body)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body, within the limits of size and time."""
        limit = self._limits.body_bytes
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value[:20]) > limit:
                raise _too_large(limit)
        client = scope.get("client")
        try:
            async with asyncio.timeout(self._limits.body_deadline_s) as deadline:
                chunk, more = await _next_chunk(receive)
                _check_size(limit, chunk)
                if not more:  # as most bodies come
                    return chunk
                return await self._collect(receive, chunk, client[0] if client else "", deadline)
        except TimeoutError:
            raise BodyTooSlow(
                f"The body did not arrive within {self._limits.body_deadline_s:g} seconds.",
                reason="body_too_slow",
            ) from None

    async def _refuse(
        self, scope: Scope, receive: Receive, send: Send, error: IngestError, request_id: UUID
    ) -> None:
        status, headers, body = self._refusal(error, request_id)
        if isinstance(error, _CLOSING):
            headers.append((b"connection", b"close"))
        lingers = isinstance(error, BodyTooLarge) and not _expects_leave(scope["headers"])
        await respond(send, status, body, request_id, headers, ends=not lingers)
        if lingers:
            await self._drop_rest(receive)
            await send({"type": "http.response.body", "body": b""})

    def _refusal(
        self, error: IngestError, request_id: UUID
    ) -> tuple[HTTPStatus, list[tuple[bytes, bytes]], bytes]:
        """The status, the further headers and the body that an error is answered with."""
        status = STATUSES[type(error)]
        headers = []
        if status is HTTPStatus.SERVICE_UNAVAILABLE:
            headers.append((b"retry-after", str(self._limits.retry_after_s).encode()))
        return status, headers, error_body(error.reason, str(error), request_id)

    async def _collect(
        self, receive: Receive, chunk: bytes, host: str, deadline: asyncio.Timeout
    ) -> bytes:
        """A body that comes in more than one piece. It counts as the client's while it waits for
        the rest, and is given up when others are to have its room."""
        loop = asyncio.get_running_loop()
        body = PartialBody(self._shares, host, lambda: deadline.reschedule(loop.time()))
        more = True
        try:
            while True:
                body.add(chunk)
                _check_size(self._limits.body_bytes, body.content)
                if not more:
                    return bytes(body.content)
                chunk, more = await _next_chunk(receive)
        except asyncio.CancelledError:
            if body.is_given_up:
                raise too_many() from None
            raise
        finally:
            body.end()

    async def _drop_rest(self, receive: Receive) -> None:
        left = self._limits.body_bytes
        with contextlib.suppress(TimeoutError, _Disconnected):
            async with asyncio.timeout(_LINGER_S):
                more = True
                while more and left >= 0:
                    chunk, more = await _next_chunk(receive)
                    left -= len(chunk)

    def _note_refusal(
        self,
        error: IngestError,
        slug: str,
        client: tuple[str, int] | None,
        headers: Headers,
        now: float,
        request_id: UUID,
    ) -> None:
        self._refused.note(
            error.reason,
            STATUSES[type(error)],
            now=now,
            source=slug,
            client=client,
            headers=headers,
            request_id=request_id,
        )

    def _note_fault(self, error: BaseException, request_id: UUID) -> None:
        """Log a bug of ours, which a stranger may have found."""
        if self._logged.lets_through("request_failed"):
            log.error(
                "request_failed",
                exc_info=error,
                request_id=str(request_id),
                left_out=self._logged.left_out("request_failed"),
            )

    async def close(self) -> None:
        """End what names costly bodies, when nothing more is received."""
        await self._namer.close()


async def respond(
    send: Send,
    status: HTTPStatus,
    body: bytes,
    request_id: UUID,
    headers: list[tuple[bytes, bytes]] | None = None,
    *,
    ends: bool = True,
) -> None:
    """Send a JSON response with the request's id. Unless it `ends` here, the caller ends it."""
    await send(
        {
            "type": "http.response.start",
            "status": status.value,
            "headers": [*_headers(body, request_id), *(headers or ())],
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": not ends})


def error_body(code: str, message: str, request_id: UUID) -> bytes:
    """An error as the senders' own API spells it."""
    return json.dumps({"error": code, "message": message, "request_id": str(request_id)}).encode()


def fault(request_id: UUID) -> tuple[HTTPStatus, bytes]:
    """The answer when it is a bug of ours."""
    body = error_body("internal", "This is our fault; try again.", request_id)
    return HTTPStatus.INTERNAL_SERVER_ERROR, body


def _headers(body: bytes, request_id: UUID) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", str(request_id).encode()),
    ]


def _head(status: HTTPStatus, headers: Headers) -> bytes:
    """A status line and headers, as they are sent."""
    lines = [b"%b: %b\r\n" % each for each in headers]
    return b"HTTP/1.1 %d %b\r\n%b" % (status, status.phrase.encode(), b"".join(lines))


def _ok_head(body: bytes, request_id: UUID) -> bytes:
    """Of all but every answer, so put together by hand."""
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\nx-request-id: %b\r\n" % (len(body), str(request_id).encode())
    )


def _delivery(
    request_id: UUID,
    source: Source,
    now: float,
    key_id: str,
    headers: Headers,
    body: bytes,
    name: EventName | None,
    rejection: InvalidEnvelope | None = None,
) -> Delivery:
    return Delivery(
        id=request_id,
        source=source.slug,
        received_at=datetime.fromtimestamp(int(now * 1000) / 1000, UTC),
        key_id=key_id,
        headers=_keep(headers, source),
        body=body,
        name=name,
        rejected=rejection.reason if rejection else None,
    )


class _Disconnected(Exception):
    """The sender hung up before its request was whole."""


async def _next_chunk(receive: Receive) -> tuple[bytes, bool]:
    """The next piece of the body, and whether there is more."""
    message: Any = await receive()
    if message["type"] == "http.disconnect":
        raise _Disconnected
    return message.get("body", b""), message.get("more_body", False)


def _expects_leave(headers: Headers) -> bool:
    """Whether the sender waits to be told before it sends its body: then it need not be read."""
    return any(name == b"expect" for name, _ in headers)


def _shake_hands(source: Source, body: bytes) -> bytes:
    answer = source.handshake(body)
    if answer is None:
        raise InvalidSignature("The signature header is missing.", reason="signature_missing")
    return answer


def _keep(headers: Headers, source: Source) -> str:
    """The headers worth keeping, as JSON. Those without anything to escape, which is most, are put
    together by hand: a third of what the encoder takes."""
    kept = [(name, value) for name, value in headers if name in source.kept_headers]
    if all(_PLAIN.fullmatch(value) for _, value in kept):
        listed = b", ".join([b'["%b", "%b"]' % each for each in kept])
        return f"[{listed.decode('ascii')}]"
    return json.dumps(
        [
            [name.decode("latin-1"), storable(value.decode("latin-1"), limit=_HEADER_VALUE_LIMIT)]
            for name, value in kept
        ]
    )


def _check_size(limit: int, body: bytes | bytearray) -> None:
    if len(body) > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {limit} bytes.", reason="body_too_large")
