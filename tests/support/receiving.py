"""A receiver of one source in this process, over a real socket. It keeps deliveries in memory."""

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.routing import Route

from ingest.receiver.body import BodyLimits, BodyReader
from ingest.receiver.endpoint import Endpoint
from ingest.receiver.fastpath import FastPath
from ingest.receiver.identifier_process import Namer
from ingest.receiver.intake import Intake
from ingest.receiver.metrics import ReceiverMetrics
from ingest.receiver.refused import RefusedRequests
from ingest.sources.base import Source
from ingest.store.pipeline.deliveries import Delivery
from tests.support.serving import serving

_BODY_BYTES = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One request to a source's address."""

    body: bytes = b""
    headers: Sequence[tuple[bytes, bytes]] = ()
    query: str = ""
    method: str = "POST"

    def raw(self, slug: str) -> bytes:
        """Return the request as it is sent."""
        target = f"/webhooks/{slug}{self.query and '?'}{self.query}"
        lines = [f"{self.method} {target} HTTP/1.1".encode(), b"Host: receiver.example"]
        lines += [b"%b: %b" % header for header in self.headers]
        lines.append(b"Content-Length: %d" % len(self.body))
        return b"\r\n".join(lines) + b"\r\n\r\n" + self.body


@dataclass(frozen=True)
class Answer:
    """An answer, and whether a delivery was stored before it."""

    status: int
    content_type: str
    body: bytes
    stored: list[bytes]


class _Writer:
    """Commits everything at once."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []

    def submit(self, delivery: Delivery) -> asyncio.Future[None]:
        self.kept.append(delivery.body)
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        committed.set_result(None)
        return committed

    async def append(self, delivery: Delivery) -> None:
        await self.submit(delivery)


def ask_receiver(source: Source, *requests: Ask, now: int | None = None) -> list[Answer]:
    """Return the answers to requests, each over a connection of its own, at `now` (Unix seconds)
    or now."""
    return asyncio.run(_ask_all(source, requests, now))


async def _ask_all(source: Source, requests: Sequence[Ask], now: int | None) -> list[Answer]:
    writer, metrics = _Writer(), ReceiverMetrics()
    intake = Intake(
        {source.slug: source},
        writer,  # type: ignore[arg-type]  # as much of one as is needed
        body_bytes=_BODY_BYTES,
        retry_after_s=7,
        clock=time.time if now is None else lambda: float(now),
        random=os.urandom,
        metrics=metrics,
        refused=RefusedRequests(metrics),
    )
    largest = intake.body_limit(source)
    bodies = BodyReader(BodyLimits(body_bytes=largest, partial_bytes=4 * largest, deadline_s=60))
    namer = Namer(waiting_bytes=4 * largest)
    endpoint = Endpoint(intake, bodies, namer)
    app = Starlette(routes=[Route("/webhooks/{source}", endpoint, methods=["POST", "GET"])])
    answers = []
    for request in requests:
        stored = len(writer.kept)
        async with serving(app, fast_path=FastPath(intake, "/webhooks/")) as (reader, connection):
            connection.write(request.raw(source.slug))
            await connection.drain()
            status, content_type, body = await _read_answer(reader)
        answers.append(Answer(status, content_type, body, writer.kept[stored:]))
    await namer.close()
    return answers


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, str, bytes]:
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)).decode("latin-1")
    first, *lines = head.split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return int(first.split()[1]), headers.get("content-type", ""), body
