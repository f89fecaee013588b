"""Wires the console's parts: settings in, ASGI application out."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
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
from ingest.console import errors
from ingest.console.api import endpoints, operations
from ingest.console.auth import middleware
from ingest.console.auth.request_info import LIVE, is_api
from ingest.console.auth.sessions import DatabaseSessions
from ingest.console.dependencies import Console
from ingest.console.pages import shown
from ingest.console.pages.pages import Pages
from ingest.console.pages.stream import stream
from ingest.console.services.bulk_runner import Runner
from ingest.console.services.commands import Operations
from ingest.console.services.live_feed import Tail
from ingest.console.services.overview import Overviews
from ingest.console.ui import charts, formats, paths
from ingest.errors import IngestError
from ingest.heartbeat import Heartbeat, identity
from ingest.settings import Settings
from ingest.sources import registry
from ingest.store.engine import Role, create_engine

_HERE = Path(__file__).parent
_CONNECTIONS = 8
_STOPS_S = 5.0


def create_app(settings: Settings) -> ASGIApp:
    """The console as an ASGI application.

    Raises:
        SettingsError: an address is missing, or credentials where it needs them.
    """
    engine = create_engine(settings.database, role=Role.OPERATOR, pool_size=_CONNECTIONS)
    sessions = DatabaseSessions(engine, random=os.urandom)
    auth = middleware.create(settings, sessions, clock=time.time, random=os.urandom)
    runner_engine = create_engine(settings.database, role=Role.OPERATOR)
    runner = Runner(runner_engine)
    presence = Heartbeat(settings.database, identity("console", random=os.urandom))
    sources = registry.configured(settings.sources)
    console = Console(
        settings=settings,
        version=__version__,
        engine=engine,
        overviews=Overviews(engine, settings.redis, clock=time.time),
        operations=Operations(engine, settings, runner, sources),
        tail=Tail(engine, clock=time.time),
        sources=sources,
        clock=time.time,
    )
    templates = _templates()
    paths.register()
    pages = Pages(console, templates)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        presence.start()
        runner.start()
        yield
        await console.tail.close()
        await asyncio.to_thread(runner.stop, timeout_s=_STOPS_S)
        await asyncio.to_thread(presence.leave)
        runner_engine.dispose()
        engine.dispose()

    app = Starlette(
        lifespan=lifespan,
        routes=[
            Route(LIVE, _live, name="live"),
            Mount("/static", StaticFiles(directory=_HERE / "static"), name="static"),
            *auth.routes(templates),
            Route("/live/stream", stream(console, templates), methods=["GET"], name="stream"),
            *operations.routes(console),
            *pages.routes(),
        ],
        exception_handlers={
            HTTPException: _refusing(pages),
            IngestError: _refusing(pages),
            SQLAlchemyError: _refusing(pages),
            Exception: _refusing(pages),
        },
    )
    app.router.redirect_slashes = False
    return auth.middleware(app)


async def _live(_request: Request) -> Response:
    return JSONResponse({"status": "ok"})


def _templates() -> Jinja2Templates:
    templates = Jinja2Templates(directory=_HERE / "templates")
    templates.env.trim_blocks = True
    templates.env.lstrip_blocks = True
    for module in (formats, charts):
        templates.env.filters.update(module.FILTERS)
    templates.env.globals["events_of"] = shown.events_of
    for name in templates.env.list_templates():
        templates.env.get_template(name)  # compiled now, rather than while the first one waits
    return templates


def _refusing(pages: Pages) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Answers errors: to a program as JSON, to a person as a page."""

    async def refuse(request: Request, error: Exception) -> Response:
        headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
        if is_api(request.url.path):
            answer = endpoints.problem_of(error)
        else:
            answer = pages.error(request, errors.describe(error))
        answer.headers.update(headers)
        return answer

    return refuse
