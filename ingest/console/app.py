"""Wires the console's parts: settings in, ASGI application out."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path

from sqlalchemy.exc import OperationalError, ProgrammingError, SQLAlchemyError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates
from starlette.types import ASGIApp

from ingest import __version__, telemetry
from ingest.console import api, charts, formats
from ingest.console.access import door
from ingest.console.access.incoming import is_api
from ingest.console.context import Console
from ingest.console.errors import BadRequest, NotPossible
from ingest.console.operations import Operations
from ingest.console.overview import Overviews
from ingest.console.pages import Pages
from ingest.console.runner import Runner
from ingest.console.stream import stream
from ingest.console.tail import Tail
from ingest.errors import IngestError, NotFound
from ingest.presence import Presence, identity
from ingest.settings import Settings
from ingest.store.database import Role, create_engine

_HERE = Path(__file__).parent
_CONNECTIONS = 8
_STOPS_S = 5.0
_STATUSES = {
    BadRequest: HTTPStatus.BAD_REQUEST,
    NotFound: HTTPStatus.NOT_FOUND,
    NotPossible: HTTPStatus.CONFLICT,
}

log = telemetry.logger(__name__)


def create_app(settings: Settings) -> ASGIApp:
    """The console as an ASGI application.

    Raises:
        SettingsError: an address is missing, or credentials where it needs them.
    """
    access = door.create(settings, clock=time.time, random=os.urandom)
    engine = create_engine(settings.database, role=Role.OPERATOR, pool_size=_CONNECTIONS)
    runner = Runner(create_engine(settings.database, role=Role.OPERATOR))
    presence = Presence(settings.database, identity("console", random=os.urandom))
    console = Console(
        settings=settings,
        version=__version__,
        engine=engine,
        overviews=Overviews(engine, settings.redis, clock=time.time),
        operations=Operations(engine, settings, runner),
        tail=Tail(engine, clock=time.time),
        clock=time.time,
    )
    templates = _templates()
    pages = Pages(console, templates)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        presence.start()
        runner.start()
        yield
        await console.tail.close()
        await asyncio.to_thread(runner.stop, timeout_s=_STOPS_S)
        await asyncio.to_thread(presence.leave)
        engine.dispose()

    app = Starlette(
        lifespan=lifespan,
        routes=[
            Route("/health/live", _live, name="live"),
            Mount("/static", StaticFiles(directory=_HERE / "static"), name="static"),
            *access.routes(templates),
            Route("/live/stream", stream(console, templates), methods=["GET"], name="stream"),
            *api.routes(console),
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
    return access.middleware(app)


async def _live(_request: Request) -> Response:
    return JSONResponse({"status": "ok"})


def _templates() -> Jinja2Templates:
    templates = Jinja2Templates(directory=_HERE / "templates")
    templates.env.trim_blocks = True
    templates.env.lstrip_blocks = True
    for module in (formats, charts):
        templates.env.filters.update(module.FILTERS)
    for name in templates.env.list_templates():
        templates.env.get_template(name)  # compiled now, rather than while the first one waits
    return templates


def _refusing(pages: Pages):  # type: ignore[no-untyped-def]
    """Answers errors: to a program as JSON, to a person as a page."""

    async def refuse(request: Request, error: Exception) -> Response:
        if is_api(request.url.path):
            return _for_programs(error)
        status, sentence, advice = _explain(error)
        return pages.error(request, status, sentence, advice)

    return refuse


def _for_programs(error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        return api.problem_of(error)
    status = HTTPStatus(error.status_code)
    answer = api.problem(status, status.name.lower(), f"{status.phrase}.")
    answer.headers.update(error.headers or {})
    return answer


def _explain(error: Exception) -> tuple[int, str, str | None]:
    """Status, what happened, and what to do."""
    if isinstance(error, HTTPException):
        if error.status_code == HTTPStatus.NOT_FOUND:
            return 404, "There is nothing at this address", "Look for it among the events."
        return error.status_code, HTTPStatus(error.status_code).phrase, None
    if isinstance(error, IngestError):
        return int(_STATUSES.get(type(error), HTTPStatus.BAD_REQUEST)), str(error), None
    if isinstance(error, SQLAlchemyError):
        return _explain_database(error)
    log.error("request_failed", exc_info=error)
    return 500, "This is a bug of ours", "The console's log says more."


def _explain_database(error: SQLAlchemyError) -> tuple[int, str, str | None]:
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    if state == "57014":
        return 503, "This took too long and was stopped", "Narrow it, by time for example."
    if isinstance(error, ProgrammingError) and state == "42P01":
        return 503, "The database is not migrated", "Run ingest migrate."
    if isinstance(error, OperationalError):
        return 503, "PostgreSQL does not answer", "Deliveries are answered 503, and senders retry."
    log.error("request_failed", exc_info=error)
    return 500, "PostgreSQL refused", "The console's log says more."
