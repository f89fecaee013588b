"""Requests to an ASGI application in this process: by hand, and as a browser makes them."""

import asyncio
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from starlette.types import ASGIApp, Message, Receive, Scope, Send

Headers = Iterable[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A response."""

    status: int
    headers: list[tuple[str, str]]
    pieces: list[bytes]

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for key, value in self.headers if key == name]

    def one(self, name: str) -> str | None:
        """The value of a header that is there at most once."""
        found = self.all(name)
        assert len(found) < 2
        return found[0] if found else None


def ask(
    app: ASGIApp,
    method: str,
    target: str,
    headers: Headers = (),
    body: bytes | list[bytes] = b"",
    *,
    client: tuple[str, int] | None = ("127.0.0.1", 40_000),
    scheme: str = "http",
) -> Answer:
    """One request; the body in the pieces that are given."""
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        "path": path,
        "raw_path": quote(path).encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
        "client": client,
        "server": ("127.0.0.1", 8001),
        "state": {},
    }
    return asyncio.run(_exchange(app, scope, [body] if isinstance(body, bytes) else body))


@contextmanager
def running(app: ASGIApp) -> Iterator[None]:
    """The application between its start and its end, as a server runs it."""

    async def start() -> tuple[asyncio.Task[None], asyncio.Queue[Message]]:
        told: asyncio.Queue[Message] = asyncio.Queue()
        said: asyncio.Queue[Message] = asyncio.Queue()
        call = app({"type": "lifespan", "state": {}}, told.get, said.put)
        task = asyncio.ensure_future(call)
        await told.put({"type": "lifespan.startup"})
        assert (await said.get())["type"] == "lifespan.startup.complete"
        return task, told

    async def stop(task: asyncio.Task[None], told: asyncio.Queue[Message]) -> None:
        await told.put({"type": "lifespan.shutdown"})
        await task

    with asyncio.Runner() as runner:
        started = runner.run(start())
        yield
        runner.run(stop(*started))


def run(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """One call of the application, all of it by hand."""

    async def call() -> None:
        await app(scope, receive, send)

    asyncio.run(call())


async def _exchange(app: ASGIApp, scope: dict[str, Any], pieces: list[bytes]) -> Answer:
    waiting = [
        {"type": "http.request", "body": piece, "more_body": number < len(pieces)}
        for number, piece in enumerate(pieces, start=1)
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *rest = sent
    return Answer(
        status=start["status"],
        headers=[(name.decode().lower(), value.decode()) for name, value in start["headers"]],
        pieces=[message["body"] for message in rest if message.get("body")],
    )


@dataclass(kw_only=True)
class Browser:
    """Keeps cookies, and says with every form where it comes from."""

    app: ASGIApp
    host: str = "127.0.0.1:8001"
    scheme: str = "http"
    client: str = "127.0.0.1"
    forwarded_for: str | None = None
    """What the proxies in front of the application say: the addresses that the request passed."""
    cookies: dict[str, str] = field(default_factory=dict)

    def get(self, target: str, **headers: str) -> Answer:
        return self._go("GET", target, self._headers(headers), b"")

    def post(self, target: str, form: dict[str, str], **headers: str) -> Answer:
        """Submit a form. Headers may be given in other ways, by name with `_` for `-`."""
        own = {
            "origin": f"{self.scheme}://{self.host}",
            "sec-fetch-site": "same-origin",
            "content-type": "application/x-www-form-urlencoded",
        }
        return self._go("POST", target, self._headers(own, headers), urlencode(form).encode())

    def log_in(self, name: str, password: str, **form: str) -> Answer:
        """Fill in the login page's form."""
        return self.post("/login", {"name": name, "password": password} | form)

    def _headers(self, *given: dict[str, str]) -> dict[str, str]:
        headers = {"host": self.host}
        if self.forwarded_for is not None:
            headers["x-forwarded-for"] = self.forwarded_for
        if self.cookies:
            headers["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        for some in given:
            headers |= {name.replace("_", "-"): value for name, value in some.items()}
        return headers

    def _go(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
        answer = ask(
            self.app,
            method,
            target,
            headers.items(),
            body,
            client=(self.client, 40_000),
            scheme=self.scheme,
        )
        for cookie in answer.all("set-cookie"):
            name, _, rest = cookie.partition("=")
            value = rest.partition(";")[0]
            if "expires=Thu, 01 Jan 1970" in cookie:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        return answer
