"""BoundedHttp over a real socket, in this process."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from ingest.receiver.client_shares import Shares
from ingest.receiver.fastpath import FastPath, FastPathHttp
from ingest.receiver.server import BoundedHttp

Application = Callable[[Scope, Receive, Send], Awaitable[None]]


@asynccontextmanager
async def serving(
    app: Application,
    served: list[BoundedHttp] | None = None,
    *,
    keep_alive_s: int = 75,
    shares: Shares | None = None,
    fast_path: FastPath | None = None,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to a server of `app`, with the fast path if one is given; its end of the connection
    goes to `served`."""
    config = uvicorn.Config(
        app,
        http=BoundedHttp,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        timeout_keep_alive=keep_alive_s,
    )
    config.load()
    state = ServerState()
    make = BoundedHttp if fast_path is None else partial(FastPathHttp, fast_path=fast_path)

    def serve() -> BoundedHttp:
        protocol = make(config=config, server_state=state, app_state={}, shares=shares)
        if served is not None:
            served.append(protocol)
        return protocol

    server = await asyncio.get_running_loop().create_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()
        server.close()
