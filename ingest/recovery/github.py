"""GitHub's API of webhook deliveries: lists them, and has failed ones sent again.

The facts are those of GitHub's documentation: "REST API endpoints for repository webhooks" (and of
organizations, and of apps), "Handling failed webhook deliveries".
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar
from urllib.parse import urlsplit

import aiohttp
from pydantic import AwareDatetime, BaseModel, TypeAdapter, ValidationError

from ingest.recovery import rate_limits
from ingest.recovery.base import MissedDelivery, RecoveryFailed, RedeliveryRefused, Say

_VERSION = "2022-11-28"
"""Of the API."""
_PAGE = 100
"""The most that a page may hold."""
_TIMEOUT_S = 30.0
_LONGEST_WAIT_S = 3_700.0
"""GitHub's limits count by the hour."""
_MAX_WAITS = 5
"""For one request."""


class _Attempt(BaseModel):
    """An attempt to deliver, as GitHub lists it. Attempts of one delivery have the same `guid`."""

    id: int
    guid: str
    delivered_at: AwareDatetime
    status: str
    status_code: int
    event: str
    action: str | None = None

    @property
    def is_good(self) -> bool:
        return self.status == "OK"


_ATTEMPTS = TypeAdapter(list[_Attempt])


@dataclass(frozen=True, slots=True, kw_only=True)
class GithubHooks:
    """The webhooks that send to one source, and how to ask for what they sent."""

    longest: ClassVar[timedelta] = timedelta(days=3)

    url: str
    """Of the API."""
    hooks: Sequence[str]
    """`repos/OWNER/NAME/hooks/ID`, `orgs/NAME/hooks/ID` or `app/hook`."""
    token: Callable[[float], str]
    """Returns the token of a request at a time (Unix seconds), or raises RecoveryFailed."""
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    @asynccontextmanager
    async def connect(self, *, say: Say) -> AsyncIterator["GithubApi"]:
        """Connect to the API.

        Raises:
            RecoveryFailed: no hook is named, or the token cannot be had.
        """
        if not self.hooks:
            raise RecoveryFailed(
                'It is not said which webhooks send here: set recover.hooks, such as "repos/'
                'OWNER/NAME/hooks/ID", in the description.',
                reason="no_hook",
            )
        self.token(self.clock())
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as client:
            yield GithubApi(self, client, say)


class GithubApi:
    """A connection to the API."""

    def __init__(self, hooks: GithubHooks, client: aiohttp.ClientSession, say: Say) -> None:
        self._hooks = hooks
        self._client = client
        self._say = say
        self._base = hooks.url.rstrip("/")

    async def missed(self, since: datetime) -> list[MissedDelivery]:
        """Return the deliveries since then of which no attempt succeeded, the oldest first."""
        missed: list[MissedDelivery] = []
        for hook in self._hooks.hooks:
            attempts = [attempt async for attempt in self._attempts(hook, since)]
            missed += (_missed(hook, attempt) for attempt in _failed(attempts))
        return sorted(missed, key=lambda delivery: delivery.sent_at)

    async def redeliver(self, delivery: MissedDelivery) -> None:
        """Ask GitHub to send a delivery again."""
        answer = await self._ask("POST", f"{self._base}/{delivery.id}/attempts")
        if 200 <= answer.status < 300:
            return
        if answer.status in (404, 422) or answer.status >= 500:
            raise RedeliveryRefused(
                f"GitHub answered {answer.status}.", reason="redelivery_refused"
            )
        raise _refused(answer.status, delivery.id)

    async def _attempts(self, hook: str, since: datetime) -> AsyncIterator[_Attempt]:
        """Yield the attempts of a hook since then, the newest first, as GitHub lists them."""
        page: str | None = f"{self._base}/{hook}/deliveries?per_page={_PAGE}"
        while page is not None:
            answer = await self._ask("GET", page)
            if answer.status != 200:
                raise _refused(answer.status, hook)
            attempts = _parsed(answer.body)
            for attempt in attempts:
                if attempt.delivered_at >= since:
                    yield attempt
            has_all = any(attempt.delivered_at < since for attempt in attempts)
            page = None if has_all or not attempts else self._next_page(answer)

    def _next_page(self, answer: "_Answer") -> str | None:
        """Return the address of the next page. The token goes to no other host."""
        if answer.next_page is not None and _origin(answer.next_page) != _origin(self._base):
            raise RecoveryFailed(
                "GitHub names another host for the next page of the list.", reason="other_host"
            )
        return answer.next_page

    async def _ask(self, method: str, url: str) -> "_Answer":
        """Return the answer to a request. Wait as long as a rate limit wants it."""
        for _ in range(_MAX_WAITS):
            answer = await self._ask_once(method, url)
            wait_s = rate_limits.wait_s(
                answer.status, answer.headers, answer.body, now=self._hooks.clock()
            )
            if wait_s is None:
                return answer
            if wait_s > _LONGEST_WAIT_S:
                break
            self._say(f"GitHub's rate limit is reached: waiting {wait_s:.0f} s.")
            await self._hooks.sleep(wait_s)
        raise RecoveryFailed(
            "GitHub's rate limit is reached, and waiting does not help: run it again later.",
            reason="rate_limited",
        )

    async def _ask_once(self, method: str, url: str) -> "_Answer":
        headers = {
            "Authorization": f"Bearer {self._hooks.token(self._hooks.clock())}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": _VERSION,
        }
        try:
            async with self._client.request(
                method, url, headers=headers, allow_redirects=False
            ) as answer:
                link = answer.links.get("next")
                return _Answer(
                    status=answer.status,
                    headers=answer.headers,
                    body=(await answer.read()).decode("utf-8", "replace"),
                    next_page=None if link is None else str(link["url"]),
                )
        except TimeoutError:
            why = f"does not answer within {_TIMEOUT_S:g} s"
        except aiohttp.ClientConnectorDNSError:
            why = "is a host name that does not resolve"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            why = f"cannot be reached ({type(error).__name__})"
        raise RecoveryFailed(f"{urlsplit(self._base).hostname} {why}.", reason="unreachable")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    """Names are found in any case."""
    body: str
    next_page: str | None


def _parsed(body: str) -> list[_Attempt]:
    try:
        return _ATTEMPTS.validate_json(body)
    except ValidationError:
        raise RecoveryFailed(
            "What GitHub answered is no list of deliveries.", reason="unreadable"
        ) from None


def _failed(attempts: Iterable[_Attempt]) -> list[_Attempt]:
    """Return the newest attempt of each delivery of which none succeeded."""
    newest: dict[str, _Attempt] = {}
    good: set[str] = set()
    for attempt in attempts:
        newest.setdefault(attempt.guid, attempt)
        if attempt.is_good:
            good.add(attempt.guid)
    return [attempt for guid, attempt in newest.items() if guid not in good]


def _missed(hook: str, attempt: _Attempt) -> MissedDelivery:
    return MissedDelivery(
        id=f"{hook}/deliveries/{attempt.id}",
        sent_at=attempt.delivered_at,
        answered=f"{attempt.status_code} {attempt.status}",
        headers=[
            (b"x-github-event", attempt.event.encode()),
            (b"x-github-delivery", attempt.guid.encode()),
        ],
        fields={} if attempt.action is None else {"action": attempt.action},
    )


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _refused(status: int, what: str) -> RecoveryFailed:
    """Return the error of a status that ends everything."""
    if status == 401:
        return RecoveryFailed(
            "GitHub does not accept the token (401): it is wrong, or has expired.",
            reason="bad_token",
        )
    if status == 403:
        return RecoveryFailed(
            f"The token may not use {what} (403): it needs the permission to write webhooks.",
            reason="forbidden",
        )
    if status == 404:
        return RecoveryFailed(
            f"GitHub knows no webhook {what} (404), or hides it from the owner of the token.",
            reason="unknown_hook",
        )
    return RecoveryFailed(f"GitHub answered {status} for {what}.", reason="unexpected_answer")
