"""The receiver: verify, insert, commit, `.delay()`, 200.

The engine is made at import, as the guides do it: uvicorn imports this module in each process of
its own. Addresses and the secret come from the environment.
"""

import hashlib
import hmac
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.benchmarks.textbook.models import WebhookEvent
from tests.benchmarks.textbook.tasks import process_event

TOLERANCE_S = 300
SECRET = os.environ["BENCH_SECRET"].encode()

# The default pool of 5 opens and closes connections beyond that: a fifth of the throughput.
engine = create_async_engine(os.environ["BENCH_DATABASE_URL"], pool_size=20, max_overflow=0)
Session = async_sessionmaker(engine, expire_on_commit=False)


async def webhook(request: Request) -> JSONResponse:
    """Take one event."""
    body = await request.body()
    if not is_authentic(
        body,
        timestamp=request.headers.get("X-Awal-Webhook-Timestamp", ""),
        signature=request.headers.get("X-Awal-Webhook-Signature", ""),
    ):
        return JSONResponse({"error": "invalid_signature"}, status_code=401)
    try:
        payload = json.loads(body)
        event_type = payload["event"]
        event_id = f"{event_type}:{payload['data']['message_id']}"
    except (ValueError, LookupError, TypeError):
        return JSONResponse({"error": "invalid_payload"}, status_code=400)

    event = WebhookEvent(event_id=event_id, type=event_type, payload=payload)
    async with Session() as session:
        session.add(event)
        try:
            await session.commit()
        except IntegrityError:  # a duplicate
            return JSONResponse({"received": True})
    await run_in_threadpool(process_event.delay, event.id)
    return JSONResponse({"received": True})


def is_authentic(body: bytes, *, timestamp: str, signature: str) -> bool:
    """Whether the sender signed this body, just now."""
    try:
        age_s = abs(time.time() - int(timestamp))
    except ValueError:
        return False
    expected = hmac.new(SECRET, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return age_s <= TOLERANCE_S and hmac.compare_digest(expected.encode(), signature.encode())


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Close the connections at the end."""
    yield
    await engine.dispose()


app = Starlette(
    routes=[Route("/webhooks/awalchat", webhook, methods=["POST"])],
    lifespan=lifespan,
)
