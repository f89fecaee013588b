"""Reads a request's body from ASGI, within limits of size and time."""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive, Scope

from ingest.errors import BodyTooLarge, BodyTooSlow, TooManyBodies
from ingest.receiver.client_shares import PartialBody, Shares, too_many

# Closing on a sender that is still writing resets the connection, and it never sees its 413. So
# its body is read on, and dropped, for a while: at most a body's bytes more, and these seconds.
_LINGER_S = 2.0

LEAVES_REST = (BodyTooSlow, BodyTooLarge, TooManyBodies)
"""After these the rest of the body may still come: the connection cannot carry another request."""


class Disconnected(Exception):
    """The sender hung up before its request was whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """What bounds bodies on their way."""

    body_bytes: int
    partial_bytes: int
    """Of all bodies together that have come in part."""
    deadline_s: float


class BodyReader:
    """Reads bodies; all that are on their way share their room."""

    def __init__(self, limits: BodyLimits) -> None:
        self._limits = limits
        self._shares = Shares(limits.partial_bytes)

    async def read(self, scope: Scope, receive: Receive, limit: int) -> bytes:
        """Return the whole body, of at most `limit` bytes.

        Raises:
            BodyTooLarge, BodyTooSlow, TooManyBodies: it breaks a limit.
            Disconnected: the sender hung up.
        """
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit():
                _check_size(int(value[:20]), limit)
        try:
            async with asyncio.timeout(self._limits.deadline_s) as deadline:
                chunk, more = await _next_chunk(receive)
                _check_size(len(chunk), limit)
                if not more:  # as most bodies come
                    return chunk
                client = scope.get("client")
                host = client[0] if client else ""
                return await self._collect(receive, chunk, host, deadline, limit)
        except TimeoutError:
            raise BodyTooSlow(
                f"The body did not arrive within {self._limits.deadline_s:g} seconds.",
                reason="body_too_slow",
            ) from None

    async def drop_rest(self, receive: Receive) -> None:
        """Read what still comes of a body that was refused, for a while."""
        left = self._limits.body_bytes
        with contextlib.suppress(TimeoutError, Disconnected):
            async with asyncio.timeout(_LINGER_S):
                more = True
                while more and left >= 0:
                    chunk, more = await _next_chunk(receive)
                    left -= len(chunk)

    async def _collect(
        self, receive: Receive, chunk: bytes, host: str, deadline: asyncio.Timeout, limit: int
    ) -> bytes:
        """Return a body that comes in more than one piece. It counts as the client's while it waits
        for the rest, and is given up when others are to have its room."""
        loop = asyncio.get_running_loop()
        body = PartialBody(self._shares, host, lambda: deadline.reschedule(loop.time()))
        more = True
        try:
            while True:
                body.add(chunk)
                _check_size(len(body.content), limit)
                if not more:
                    return bytes(body.content)
                chunk, more = await _next_chunk(receive)
        except asyncio.CancelledError:
            if body.is_given_up:
                raise too_many() from None
            raise
        finally:
            body.end()


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise BodyTooLarge(f"The body is larger than {limit} bytes.", reason="body_too_large")


async def _next_chunk(receive: Receive) -> tuple[bytes, bool]:
    """Return the next piece of the body, and whether there is more."""
    message: Any = await receive()
    if message["type"] == "http.disconnect":
        raise Disconnected
    return message.get("body", b""), message.get("more_body", False)
