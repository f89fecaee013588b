"""An export as a download: its response streams, and ends with the client."""

from collections.abc import AsyncIterator

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from ingest.export import MEDIA_TYPES, Export


class Download(StreamingResponse):
    """Sends an export as it is read. Whatever ends the response closes the export."""

    def __init__(self, export: Export) -> None:
        form = export.wanted.form
        super().__init__(
            _pieces(export),
            media_type=MEDIA_TYPES[form],
            headers={
                "Content-Disposition": f'attachment; filename="events.{form}"',
                "X-Accel-Buffering": "no",
            },
        )
        self._export = export

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, or its headers alone."""
        try:
            if scope["method"] == "HEAD":
                await Response(headers=dict(self.headers))(scope, receive, send)
            else:
                await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await run_in_threadpool(self._export.close)


async def _pieces(export: Export) -> AsyncIterator[bytes]:
    while (piece := await run_in_threadpool(next, export, None)) is not None:
        if piece:
            yield piece
