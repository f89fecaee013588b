"""A stand-in for GitHub's API of webhook deliveries, over real HTTP. It sends again if it is given
something to send with."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from aiohttp import web

TOKEN = "ghp_the_token_of_the_tests"
HOOK = "repos/acme/shop/hooks/7"
STATUSES = {200: "OK", 503: "Service Unavailable", 504: "timed out", 502: "failed to connect"}


@dataclass
class Answer:
    """What the stand-in answers instead, once."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: str = "{}"


@dataclass
class Github:
    """Its attempts, the newest first, as its API lists them."""

    port: int = 0
    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    """Before which its attempts were made. Not when the module was imported: a whole suite takes
    longer than what some tests look back over."""
    page: int = 100
    """Attempts on a page, whatever is asked for, up to that."""
    hook: str = HOOK
    attempts: list[dict[str, Any]] = field(default_factory=list)
    instead: list[Answer] = field(default_factory=list)
    """Answers to the next requests."""
    refuses: dict[int, int] = field(default_factory=dict)
    """The status for a redelivery of an attempt."""
    send: Callable[[dict[str, Any]], int] | None = None
    """Sends a delivery, and returns the status that it got."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    redelivered: list[str] = field(default_factory=list)
    """The GUIDs that were asked for."""
    tokens: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def attempt(
        self, guid: str, status: int = 503, *, ago: timedelta = timedelta(hours=1), **more: Any
    ) -> int:
        """Add an attempt, and return its id."""
        number = 10**15 + len(self.attempts)  # as long as GitHub's
        listed = {
            "id": number,
            "guid": guid,
            "delivered_at": (self.now - ago).isoformat().replace("+00:00", "Z"),
            "redelivery": False,
            "duration": 0.27,
            "status": STATUSES.get(status, "Error"),
            "status_code": status,
            "event": "issues",
            "action": "opened",
            "installation_id": None,
            "repository_id": 123,
            "url": "",
        } | more
        self.attempts.append(listed)
        self.attempts.sort(key=lambda each: each["delivered_at"], reverse=True)
        return number

    def answer(self, method: str, target: str, token: str) -> Answer:
        self.requests.append((method, target))
        self.tokens.add(token)
        if self.instead:
            return self.instead.pop(0)
        path, query = urlsplit(target).path.strip("/"), parse_qs(urlsplit(target).query)
        if self.hook != "app/hook" and token != f"Bearer {TOKEN}":
            return Answer(401, body='{"message":"Bad credentials"}')
        if (method, path) == ("GET", f"{self.hook}/deliveries"):
            return self._list(path, query)
        for attempt in list(self.attempts):
            if (method, path) == ("POST", f"{self.hook}/deliveries/{attempt['id']}/attempts"):
                return self._redeliver(attempt)
        return Answer(404, body='{"message":"Not Found"}')

    def _list(self, path: str, query: dict[str, list[str]]) -> Answer:
        begins = int(query.get("cursor", ["v1_0"])[0].removeprefix("v1_"))
        size = min(self.page, int(query.get("per_page", ["30"])[0]))
        ends = begins + size
        links = [
            f'<{self.url}/{path}?per_page={size}&cursor=v1_{max(0, begins - size)}>; rel="prev"'
        ]
        if ends < len(self.attempts):
            links.append(f'<{self.url}/{path}?per_page={size}&cursor=v1_{ends}>; rel="next"')
        return Answer(200, {"Link": ", ".join(links)}, json.dumps(self.attempts[begins:ends]))

    def _redeliver(self, attempt: dict[str, Any]) -> Answer:
        if attempt["id"] in self.refuses:
            return Answer(self.refuses[attempt["id"]])
        self.redelivered.append(attempt["guid"])
        if self.send is not None:
            more = {"event": attempt["event"], "action": attempt["action"], "redelivery": True}
            self.attempt(attempt["guid"], self.send(attempt), ago=timedelta(0), **more)
        return Answer(202)


@contextmanager
def standing_in() -> Iterator[Github]:
    """Serve a stand-in without deliveries, from a thread of its own."""
    github = Github()

    async def handle(request: web.BaseRequest) -> web.Response:
        answer = await asyncio.to_thread(
            github.answer, request.method, request.path_qs, request.headers["Authorization"]
        )
        return web.Response(status=answer.status, headers=answer.headers, text=answer.body)

    async def start() -> web.ServerRunner:
        runner = web.ServerRunner(web.Server(handle))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        github.port = runner.addresses[0][1]
        return runner

    loop = asyncio.new_event_loop()
    runner = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield github
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
