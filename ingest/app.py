"""Wires the receiver's parts: settings in, ASGI application out."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Mapping
from functools import partial
from http import HTTPStatus
from uuid import UUID

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ingest import descriptors, receiver, sources, telemetry, writer
from ingest.dispatch import Dispatcher, HintThread
from ingest.errors import SettingsError
from ingest.http import Take
from ingest.ids import RANDOM_BYTES, delivery_id
from ingest.presence import Presence, identity
from ingest.refused import Refused
from ingest.settings import Settings
from ingest.tally import Tally

_DISPATCH_CLOSES_S = 3

log = telemetry.logger(__name__)
_faults = telemetry.Sampler(interval_s=1.0, clock=time.monotonic)


_WEBHOOKS = "/webhooks/"


def create_app(settings: Settings) -> "Application":
    """The receiver as an ASGI application.

    Raises:
        SettingsError: a secret or an address is missing.
    """
    if not settings.awalchat_secrets:
        raise SettingsError(
            "No webhook secret: set INGEST_AWALCHAT_SECRETS (newest first, separated by commas).",
            reason="no_secret",
        )
    hints = HintThread(Dispatcher(settings.redis))
    deliveries = writer.DeliveryWriter(
        settings.database,
        writer.Limits(
            flush_rows=settings.flush_max_rows,
            flush_bytes=settings.flush_max_bytes,
            flush_timeout_s=settings.flush_timeout_s,
            backlog_rows=settings.backlog_max_rows,
            backlog_bytes=settings.backlog_max_bytes,
            hint_grace_s=settings.hint_grace_s,
        ),
        on_commit=hints.hint,
        clock=time.time,
        random=os.urandom,
    )
    configured = sources.configured(settings)
    tally = Tally()
    refused = Refused(tally)
    presence = Presence(
        settings.database, identity("receiver", random=os.urandom), report=tally.report
    )
    endpoint = receiver.Receiver(
        configured,
        deliveries,
        receiver.Limits(
            body_bytes=settings.max_body_bytes,
            partial_bytes=settings.partial_max_bytes,
            waiting_bytes=settings.backlog_max_bytes,
            body_deadline_s=settings.body_deadline_s,
            retry_after_s=settings.retry_after_s,
        ),
        clock=time.time,
        random=os.urandom,
        tally=tally,
        refused=refused,
    )

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        hints.start()
        await deliveries.start()
        presence.start()
        watch = asyncio.create_task(descriptors.watch())
        yield
        watch.cancel()
        await endpoint.close()
        await deliveries.close()
        await asyncio.to_thread(presence.leave)
        hints.close(timeout_s=_DISPATCH_CLOSES_S)

    async def ready(_request: Request) -> Response:
        problem = await deliveries.problem()
        document = {
            "database": problem.reason if problem else "ok",
            "dispatch": "failing" if hints.failing else "ok",
        }
        if problem is None:
            return JSONResponse(document)
        document["problem"] = problem.sentence
        return JSONResponse(document, HTTPStatus.SERVICE_UNAVAILABLE)

    app = Starlette(
        lifespan=lifespan,
        routes=[
            Route(_WEBHOOKS + "{source}", endpoint, methods=["POST"], name="receive"),
            Route("/health/live", live, name="live"),
            Route("/health/ready", ready, name="ready"),
        ],
        exception_handlers={HTTPException: partial(refuse, refused), Exception: fail},
    )
    app.router.redirect_slashes = False  # no sender follows, and the address is the client's word
    return Application(
        app, {f"{_WEBHOOKS}{slug}".encode(): partial(endpoint.take, slug) for slug in configured}
    )


class Application:
    """The ASGI application, and the short way for deliveries that come whole (ingest.http)."""

    def __init__(self, app: Starlette, deliveries: Mapping[bytes, Take]) -> None:
        """`deliveries` are targets of POST requests, each with what takes them."""
        self._app = app
        self._deliveries = deliveries

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    def takes(self, method: bytes, target: bytes) -> Take | None:
        """What takes such a request, if it is a delivery."""
        return self._deliveries.get(target) if method == b"POST" else None


async def live(_request: Request) -> Response:
    """The process serves."""
    return JSONResponse({"status": "ok"})


async def refuse(refused: Refused, request: Request, error: Exception) -> Response:
    """What Starlette itself refuses (no such path, no such method), in the same form as the
    rest, and noted as the rest is: a sender may have been given a wrong address."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    code = status.name.lower()
    request_id = _request_id()
    refused.note(
        code,
        status,
        now=time.time(),
        source="",
        client=request.client,
        headers=request.headers.raw,
        request_id=request_id,
        path=f"{request.method} {request.url.path}",
    )
    body = receiver.error_body(code, f"{status.phrase}.", request_id)
    return _respond(status, body, request_id, dict(error.headers or {}))


async def fail(_request: Request, error: Exception) -> Response:
    """A bug of ours."""
    request_id = _request_id()
    if _faults.lets_through("request_failed"):
        log.error(
            "request_failed",
            exc_info=error,
            request_id=str(request_id),
            left_out=_faults.left_out("request_failed"),
        )
    status, body = receiver.fault(request_id)
    return _respond(status, body, request_id, {})


def _respond(
    status: HTTPStatus, body: bytes, request_id: UUID, headers: dict[str, str]
) -> Response:
    return Response(
        body,
        status,
        headers | {"x-request-id": str(request_id)},
        media_type="application/json",
    )


def _request_id() -> UUID:
    return delivery_id(int(time.time() * 1000), os.urandom(RANDOM_BYTES))
