"""Wires the receiver's parts: settings in, an ASGI application and its HTTP protocol out."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from importlib.util import find_spec
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from ingest.dispatch import BackgroundDispatcher, Dispatcher
from ingest.errors import SettingsError
from ingest.heartbeat import Heartbeat, identity
from ingest.monitoring import catalogue
from ingest.monitoring import endpoint as monitoring
from ingest.monitoring.samples import Sample
from ingest.receiver import descriptors, responses, server
from ingest.receiver.body import BodyLimits, BodyReader
from ingest.receiver.commits import Commits
from ingest.receiver.endpoint import Endpoint
from ingest.receiver.identifier_process import Namer
from ingest.receiver.intake import Intake
from ingest.receiver.metrics import ReceiverMetrics
from ingest.receiver.refused import RefusedRequests
from ingest.receiver.shutdown import Shutdown
from ingest.receiver.writer import DeliveryWriter, Limits
from ingest.secret_files import SecretFiles
from ingest.settings import Settings, reload_secrets, secret_files
from ingest.sources import registry
from ingest.sources.base import Source, SourceSettings
from ingest.tracing import start as tracing

if TYPE_CHECKING:
    from ingest.tracing.requests import RequestTraces

_DISPATCH_CLOSES_S = 3
WEBHOOKS = "/webhooks/"
_FAST_PATH = "ingest.receiver.fastpath"


@dataclass(frozen=True, slots=True)
class Receiver:
    """What a server runs."""

    app: ASGIApp
    http: type[asyncio.Protocol]
    """What speaks HTTP with senders."""
    shutdown: Shutdown
    """What the server tells that it ends."""


def create_receiver(settings: Settings) -> Receiver:
    """Return the receiver that the settings describe.

    Raises:
        SettingsError: a secret or an address is missing, or a body limit cannot be met.
    """
    traces = tracing.requests(settings)
    sources = _receiving(settings, settings.sources, traces)
    _check_body_limits(sources.values(), settings)
    secrets = SecretFiles(
        secret_files(os.environ).values(), partial(_reload, settings, sources, traces)
    )
    dispatcher = traces.dispatcher(settings.redis) if traces else Dispatcher(settings.redis)
    hints = BackgroundDispatcher(dispatcher)
    commits = Commits(sources, clock=time.monotonic)
    writer = _writer(settings, hints, commits, traces)
    metrics = ReceiverMetrics(sources, clock=time.time)
    refused = RefusedRequests(metrics, trusted_proxies=settings.trusted_proxies)
    intake = Intake(
        sources,
        writer,
        body_bytes=settings.max_body_bytes,
        retry_after_s=settings.retry_after_s,
        clock=time.time,
        random=os.urandom,
        metrics=metrics,
        refused=refused,
    )
    presence = Heartbeat(
        settings.database,
        identity("receiver", random=os.urandom),
        report=metrics.report,
        confirm=metrics.confirm_report,
    )
    endpoint = monitoring.endpoint(
        settings,
        "receiver",
        [metrics.read, commits.read, partial(_read_state, writer), dispatcher.read],
    )
    shutdown = Shutdown()
    namer = Namer(waiting_bytes=settings.backlog_max_bytes)
    bodies = BodyReader(
        BodyLimits(
            body_bytes=settings.max_body_bytes,
            partial_bytes=settings.max_inflight_body_bytes,
            deadline_s=settings.body_deadline_s,
        )
    )

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        hints.start()
        await writer.start()
        presence.start()
        secrets.start()
        if endpoint is not None:
            endpoint.start()
        if any(source.sends_batches for source in intake.sources.values()):
            await namer.start()
        watch = asyncio.create_task(descriptors.watch())
        yield
        watch.cancel()
        secrets.stop()
        await namer.close()
        await writer.close()
        await asyncio.to_thread(presence.leave)
        hints.close(timeout_s=_DISPATCH_CLOSES_S)
        if traces is not None:
            await asyncio.to_thread(traces.close)
        if endpoint is not None:
            await asyncio.to_thread(endpoint.close)

    app = Starlette(
        lifespan=lifespan,
        routes=[
            Route(
                WEBHOOKS + "{source}",
                Endpoint(intake, bodies, namer),
                methods=["POST", "GET"],
                name="receive",
            ),
            Route("/health/live", live, name="live"),
            Route("/health/ready", partial(ready, writer, hints, shutdown), name="ready"),
        ],
        exception_handlers={
            HTTPException: partial(refuse, intake, refused),
            Exception: partial(fail, intake),
        },
    )
    app.router.redirect_slashes = False  # no sender follows, and the address is the client's word
    http = server.protocol(
        settings.max_inflight_body_bytes, fast_protocol(intake), server_shutdown=shutdown
    )
    return Receiver(app, http, shutdown)


def _receiving(
    settings: Settings, of_sources: Mapping[str, SourceSettings], traces: "RequestTraces | None"
) -> dict[str, Source]:
    sources = registry.receiving(of_sources, default=settings.default_source)
    return traces.keep_contexts(sources) if traces else sources


def _reload(settings: Settings, sources: dict[str, Source], traces: "RequestTraces | None") -> None:
    """Give the sources of a receiver the secrets that their files hold now.

    Raises:
        SettingsError: a file cannot be used; nothing has changed.
    """
    fresh = reload_secrets(settings.sources, os.environ)
    sources.update(_receiving(settings, fresh, traces))


def _check_body_limits(sources: Iterable[Source], settings: Settings) -> None:
    limits = {"INGEST_MAX_BODY_BYTES": settings.max_body_bytes}
    limits |= {
        f"The body_limit of the source {source.slug}": source.body_limit
        for source in sources
        if source.body_limit is not None
    }
    inflight_bytes = settings.max_inflight_body_bytes
    for name, limit in limits.items():
        if limit > inflight_bytes:
            raise SettingsError(
                f"{name} is {limit} bytes, and INGEST_MAX_INFLIGHT_BODY_BYTES is {inflight_bytes}:"
                " raise this or lower that, or the largest bodies are never read.",
                reason="bad_setting",
            )


def fast_protocol(intake: Intake) -> Callable[..., server.BoundedHttp] | None:
    """Return what makes protocols with a fast path, or None: its file may be deleted."""
    if find_spec(_FAST_PATH) is None:
        return None
    from ingest.receiver import fastpath

    return fastpath.protocol(intake, WEBHOOKS)


def _read_state(writer: DeliveryWriter) -> list[Sample]:
    rows, size = writer.waiting
    return [
        Sample(catalogue.WAITING_DELIVERIES, rows),
        Sample(catalogue.WAITING_BYTES, size),
        Sample(catalogue.STORAGE_UP, int(writer.works)),
    ]


def _writer(
    settings: Settings,
    hints: BackgroundDispatcher,
    commits: Commits,
    traces: "RequestTraces | None",
) -> DeliveryWriter:
    return DeliveryWriter(
        settings.database,
        Limits(
            flush_rows=settings.flush_max_rows,
            flush_bytes=settings.flush_max_bytes,
            flush_timeout_s=settings.flush_timeout_s,
            backlog_rows=settings.backlog_max_rows,
            backlog_bytes=settings.backlog_max_bytes,
            dispatch_grace_s=settings.dispatch_grace_s,
        ),
        on_commit=hints.hint,
        commits=commits,
        traces=traces,
        clock=time.time,
        random=os.urandom,
    )


async def live(_request: Request) -> Response:
    """Answer that the process serves."""
    return JSONResponse({"status": "ok"})


async def ready(
    writer: DeliveryWriter, hints: BackgroundDispatcher, shutdown: Shutdown, _request: Request
) -> Response:
    """Answer whether a delivery would be stored now and in a moment; if not, why."""
    problem = await writer.problem()
    document = {
        "database": problem.reason if problem else "ok",
        "dispatch": "failing" if hints.failing else "ok",
    }
    if problem is not None:
        document["problem"] = problem.sentence
    elif shutdown.has_begun:
        document["problem"] = "This receiver shuts down."
    else:
        return JSONResponse(document)
    return JSONResponse(document, HTTPStatus.SERVICE_UNAVAILABLE)


async def refuse(
    intake: Intake, refused: RefusedRequests, request: Request, error: Exception
) -> Response:
    """Answer what Starlette itself refuses (no such path, no such method) in the form of all
    refusals. It is noted as they are: a sender may have been given a wrong address."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    code, sentence = status.name.lower(), f"{status.phrase}."
    arrived = intake.begin("", request.client, request.headers.raw, request.url.path)
    refused.note(
        code,
        status,
        now=arrived.received_at,
        source="",
        client=request.client,
        headers=request.headers.raw,
        request_id=arrived.id,
        sentence=sentence,
        path=f"{request.method} {request.url.path}",
    )
    answer = responses.Response(status, responses.error_body(code, sentence, arrived.id))
    return _starlette(answer, str(arrived.id), error.headers or {})


async def fail(intake: Intake, request: Request, error: Exception) -> Response:
    """Answer when a bug of ours is to blame."""
    arrived = intake.begin("", request.client, request.headers.raw, request.url.path)
    return _starlette(intake.fail(error, arrived), str(arrived.id), {})


def _starlette(answer: responses.Response, request_id: str, headers: Mapping[str, str]) -> Response:
    return Response(
        answer.body,
        answer.status,
        {**headers, "x-request-id": request_id},
        media_type="application/json",
    )
