"""A small application behind the console's access control, and people who use it."""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from argon2 import PasswordHasher
from sqlalchemy.exc import OperationalError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.templating import Jinja2Templates
from starlette.types import ASGIApp

import ingest.console
from ingest import settings
from ingest.console.auth import credentials, middleware
from ingest.console.auth.identity import Identity
from tests.support.asgi import Browser

TEMPLATES = Path(ingest.console.__file__).parent / "templates"

PASSWORD = "correct horse battery"
OTHER_PASSWORD = "entirely different words"
TOKEN = "token_of_the_deploy_script"
VIEWER_TOKEN = "token_of_the_dashboard"
START = 1_800_000_000.0

TOKENS = (
    f"deploy:operator:{credentials.digest(TOKEN)};"
    f"dashboard:viewer:{credentials.digest(VIEWER_TOKEN)}"
)


@cache
def hashed(password: str) -> str:
    """A hash that costs next to nothing to check."""
    return PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(password)


def users(password: str = PASSWORD, role: str = "operator") -> str:
    """Alice, who has the password and the role, and Victor, who looks."""
    return f"alice:{role}:{hashed(password)}\nvictor:viewer:{hashed(OTHER_PASSWORD)}\n"


@dataclass
class Clock:
    """A clock that the test moves."""

    now: float = START

    def __call__(self) -> float:
        return self.now


@dataclass
class KeptSessions:
    """What consoles know together of their sessions, without a database."""

    key: bytes = field(default_factory=lambda: os.urandom(32))
    ended: dict[str, datetime] = field(default_factory=dict)
    asked: int = 0
    is_away: bool = False

    def signing_key(self) -> bytes:
        self._answer()
        return self.key

    def end(self, session: str, expires_at: datetime) -> None:
        self._answer()
        self.ended[session] = expires_at

    def has_ended(self, session: str) -> bool:
        self._answer()
        return session in self.ended

    def _answer(self) -> None:
        self.asked += 1
        if self.is_away:
            raise OperationalError("SELECT", None, ConnectionRefusedError("a secret"))


@dataclass
class Console:
    """The application and what it was asked to change."""

    app: ASGIApp
    clock: Clock
    kept: KeptSessions
    control: middleware.Auth
    changes: list[dict[str, Any]] = field(default_factory=list)

    def browser(self, **more: Any) -> Browser:
        return Browser(app=self.app, **more)

    def logged_in(self, name: str = "alice", password: str = PASSWORD, **more: Any) -> Browser:
        """A browser in which somebody has logged in."""
        browser = self.browser(**more)
        assert browser.log_in(name, password).status == 303
        return browser


def console(
    *, clock: Clock | None = None, kept: "KeptSessions | None" = None, **given: Any
) -> Console:
    """A console with these settings; one with the same `kept` has the same sessions."""
    clock = clock or Clock()
    kept = kept or KeptSessions()
    control = middleware.create(settings.load(**given), kept, clock=clock, random=os.urandom)
    changes: list[dict[str, Any]] = []

    async def who(request: Request) -> Response:
        who = request.scope.get("user")
        shown = [who.name, who.role, who.via] if isinstance(who, Identity) else None
        return JSONResponse({"identity": shown})

    async def change(request: Request) -> Response:
        body = await request.body()
        form = dict(await request.form())
        by = request.user
        changes.append({"by": by.name, "who": by.identity, "body": body, "form": form})
        return JSONResponse({"changed": True})

    async def stream(_request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"data: 1\n\n"
            yield b"data: 2\n\n"

        return StreamingResponse(pieces(), media_type="text/event-stream")

    app = Starlette(
        routes=[
            *control.routes(_templates()),
            Route("/", who),
            Route("/events", who),
            Route("/replay", change, methods=["POST", "PUT", "DELETE"]),
            Route("/api/v1/events", who),
            Route("/api/v1/replay", change, methods=["POST"]),
            Route("/static/{path:path}", who, methods=["GET", "POST"]),
            Route("/health/live", who, methods=["GET", "POST"]),
            Route("/stream", stream),
        ]
    )
    return Console(control.middleware(app), clock, kept, control, changes)


def _templates() -> Jinja2Templates:
    base = "<title>{% block title %}{% endblock %}</title>{% block content %}{% endblock %}"
    loader = jinja2.ChoiceLoader(
        [jinja2.DictLoader({"base.html": base}), jinja2.FileSystemLoader(TEMPLATES)]
    )
    return Jinja2Templates(env=jinja2.Environment(loader=loader, autoescape=True))
