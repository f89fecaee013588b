"""The end of a receiver: proxies learn of it before the receiver stops listening.

For `delay_s` the receiver goes on receiving. Its readiness check fails, and each answer closes its
connection, so that a proxy keeps none that could be closed under its next request.
"""

import asyncio
import socket

import uvicorn

_LOOK_S = 0.1


class Shutdown:
    """Whether the server has been told to end."""

    has_begun = False


class DelayedServer(uvicorn.Server):
    """uvicorn's server, which stops listening `delay_s` seconds after it was told to end."""

    def __init__(self, config: uvicorn.Config, shutdown: Shutdown, *, delay_s: float) -> None:
        """Serve as `config` says, and note in `shutdown` when the end begins."""
        super().__init__(config)
        self._shutdown = shutdown
        self._delay_s = delay_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Say that the end has begun, wait, and end. A second SIGINT ends the wait."""
        self._shutdown.has_begun = True
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._delay_s
        # A signal handler sets `force_exit`.
        while not self.force_exit and (left := ends - loop.time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(_LOOK_S, left))
        await super().shutdown(sockets)
