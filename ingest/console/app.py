"""Wires the console's parts: settings in, ASGI application out."""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates
from starlette.types import ASGIApp

from ingest import __version__
from ingest.alerts import watch as alerts
from ingest.console import errors
from ingest.console.api import endpoints, operations
from ingest.console.auth import middleware
from ingest.console.auth.credentials import TOKENS, USERS
from ingest.console.auth.request_info import LIVE, is_api
from ingest.console.auth.sessions import DatabaseSessions
from ingest.console.dependencies import Console
from ingest.console.pages import api_docs, event, routes
from ingest.console.pages import error as error_page
from ingest.console.pages.site import Site
from ingest.console.services.addresses import Addresses
from ingest.console.services.bulk_runner import BulkRunner
from ingest.console.services.commands import Commands
from ingest.console.services.entity_view import Entities
from ingest.console.services.erasure_runner import ErasureRunner
from ingest.console.services.erasures import Erasures
from ingest.console.services.exports import Exports
from ingest.console.services.failure_changes import FailureChanges
from ingest.console.services.keyed_requests import KeyedRequests
from ingest.console.services.live_feed import LiveFeed
from ingest.console.services.overview import OverviewCache
from ingest.console.services.resending import Resending
from ingest.console.ui import api_reference, charts, formats, paths
from ingest.destinations import overview
from ingest.errors import IngestError
from ingest.heartbeat import Heartbeat, identity
from ingest.monitoring import endpoint as monitoring
from ingest.monitoring.pool_waits import PoolWaits
from ingest.secret_files import SecretFiles
from ingest.settings import Settings, file_of, reload_secrets, reload_text, secret_files
from ingest.sources import registry
from ingest.sources.base import Source
from ingest.store.engine import Role, create_engine

_HERE = Path(__file__).parent
_CONNECTIONS = 8
_RUNNERS = 2
_STOP_TIMEOUT_S = 5.0


def create_app(settings: Settings) -> ASGIApp:
    """Return the console as an ASGI application.

    Raises:
        SettingsError: an address is missing, or credentials are missing where they are required, or
            the file of the alerts cannot be used.
    """
    waits = PoolWaits()
    engine = create_engine(
        settings.database, role=Role.OPERATOR, pool_size=_CONNECTIONS, on_wait=waits.add
    )
    sessions = DatabaseSessions(engine, random=os.urandom)
    auth = middleware.create(settings, sessions, clock=time.time, random=os.urandom)
    runner_engine = create_engine(settings.database, role=Role.OPERATOR, pool_size=_RUNNERS)
    runner = BulkRunner(runner_engine)
    process = identity("console", random=os.urandom)
    heartbeat = Heartbeat(settings.database, process)
    alerting = alerts.load(settings)
    watch = alerts.Watch(settings, alerting, by=process.id, stands_in=True)
    endpoint = monitoring.endpoint(settings, "console", [waits.read])
    sources = registry.configured(settings.sources)
    erasure_runner = ErasureRunner(runner_engine, sources)
    secrets = SecretFiles(_secret_files(), partial(_reload, settings, sources, auth))
    console = Console(
        settings=settings,
        version=__version__,
        engine=engine,
        overviews=OverviewCache(engine, settings.redis, clock=time.time),
        commands=Commands(engine, settings, runner, sources, alerting),
        entities=Entities(
            engine=engine, sources=sources, addresses=Addresses(engine, random=os.urandom)
        ),
        erasures=Erasures(engine, erasure_runner, sources),
        exports=Exports(engine, settings),
        failure_changes=FailureChanges(engine),
        keyed_requests=KeyedRequests(engine, random=os.urandom),
        live_feed=LiveFeed(engine, sources, clock=time.time),
        resending=Resending(engine, settings, sources),
        sources=sources,
        destinations=overview.hosts(settings, os.environ),
        alerting=alerting,
        clock=time.time,
    )

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        heartbeat.start()
        secrets.start()
        runner.start()
        erasure_runner.start()
        watch.start()
        if endpoint is not None:
            endpoint.start()
        threading.Thread(
            target=api_docs.prepare, args=(__version__,), name="API documents", daemon=True
        ).start()
        yield
        secrets.stop()
        if endpoint is not None:
            await asyncio.to_thread(endpoint.close)
        await console.live_feed.close()
        await asyncio.to_thread(runner.stop, timeout_s=_STOP_TIMEOUT_S)
        await asyncio.to_thread(erasure_runner.stop, timeout_s=_STOP_TIMEOUT_S)
        await asyncio.to_thread(watch.stop)
        await asyncio.to_thread(heartbeat.leave)
        runner_engine.dispose()
        engine.dispose()

    site = Site(console=console, templates=_templates())
    return auth.middleware(_starlette(site, auth, lifespan))


def _secret_files() -> list[Path]:
    files = [file_of(variable, os.environ) for variable in (USERS, TOKENS)]
    return [*filter(None, files), *secret_files(os.environ).values()]


def _reload(settings: Settings, sources: dict[str, Source], auth: middleware.Auth) -> None:
    """Put the secrets, users and tokens into use that their files hold now.

    Raises:
        SettingsError: a file cannot be used; nothing has changed.
    """
    fresh = registry.configured(reload_secrets(settings.sources, os.environ))
    auth.reload(reload_text(USERS, os.environ), reload_text(TOKENS, os.environ))
    sources.update(fresh)


def _starlette(
    site: Site,
    auth: middleware.Auth,
    lifespan: Callable[[Starlette], contextlib.AbstractAsyncContextManager[None]],
) -> Starlette:
    paths.register()
    respond = _error_handler(site)
    app = Starlette(
        lifespan=lifespan,
        routes=[
            Route(LIVE, _live, name="live probe"),
            Mount("/static", StaticFiles(directory=_HERE / "static"), name="static"),
            *auth.routes(site.templates),
            *operations.routes(site.console),
            *routes.routes(site),
        ],
        exception_handlers={
            HTTPException: respond,
            IngestError: respond,
            SQLAlchemyError: respond,
            Exception: respond,
        },
    )
    app.router.redirect_slashes = False
    return app


async def _live(_request: Request) -> Response:
    return JSONResponse({"status": "ok"})


def _templates() -> Jinja2Templates:
    templates = Jinja2Templates(directory=_HERE / "templates")
    templates.env.trim_blocks = True
    templates.env.lstrip_blocks = True
    for module in (formats, charts, event, api_reference):
        templates.env.filters.update(module.FILTERS)
    templates.env.globals["events_link"] = paths.events_link
    templates.env.globals["processor_path"] = paths.processor_path
    templates.env.globals["search_for"] = paths.search_for
    for name in templates.env.list_templates():
        templates.env.get_template(name)  # compile now, so that the first request does not wait
    return templates


def _error_handler(site: Site) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Return the handler of errors: JSON for the API, a page for people."""

    async def respond(request: Request, error: Exception) -> Response:
        if is_api(request.url.path):
            response = endpoints.error_response(error)
        else:
            response = error_page.show(site, request, errors.describe(error))
        if isinstance(error, HTTPException):
            response.headers.update(error.headers or {})
        return response

    return respond
