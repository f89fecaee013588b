"""The endpoints of a log-in with a provider: there, back from there, and out."""

import time
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from ingest import logs
from ingest.console.auth import clients
from ingest.console.auth.login import TOO_OFTEN, WINDOW_S
from ingest.console.auth.login_page import LoginPage
from ingest.console.auth.oidc import pending, problems
from ingest.console.auth.oidc.configuration import Configuration
from ingest.console.auth.oidc.pending import Pending
from ingest.console.auth.oidc.problems import LoginFailed
from ingest.console.auth.oidc.provider import Provider
from ingest.console.auth.request_info import (
    LOGIN,
    OIDC_CALLBACK,
    OIDC_LOGIN,
    OIDC_LOGOUT,
    local,
)
from ingest.console.auth.sessions import Sessions
from ingest.console.auth.throttle import Throttle

TRIES_PER_ADDRESS = 60
"""A log-in takes two. Each may ask the provider something."""
_MAX_KEYS = 10_000
_LOG_INTERVAL_S = 1.0

log = logs.logger(__name__)


class ProviderLogin:
    """Sends browsers to the provider, and begins sessions of those whom it vouches for."""

    def __init__(
        self,
        configuration: Configuration,
        sessions: Sessions,
        page: LoginPage,
        *,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        """`clock` returns Unix time in seconds, `random` that many random bytes."""
        self._configuration = configuration
        self._provider = Provider(configuration, clock=clock)
        self._sessions = sessions
        self._page = page
        self._clock = clock
        self._random = random
        self._throttle = Throttle(window_s=WINDOW_S, max_keys=_MAX_KEYS, clock=clock)
        self._sampler = logs.Sampler(interval_s=_LOG_INTERVAL_S, clock=time.monotonic)

    def routes(self) -> list[Route]:
        """Return the routes of the endpoints."""
        return [
            Route(OIDC_LOGIN, self.begin, methods=["GET"], name="oidc_login"),
            Route(OIDC_CALLBACK, self.finish, methods=["GET"], name="oidc_callback"),
            Route(OIDC_LOGOUT, self.leave, methods=["GET"], name="oidc_logout"),
        ]

    async def begin(self, request: Request) -> Response:
        """Send the browser to the provider."""
        target = local(request.query_params.get("next"))
        if request.user.is_authenticated:
            return RedirectResponse(target, 303)
        wait_s = self._wait_s(request)
        if wait_s:
            return self._too_often(request, target, wait_s)
        begun = pending.begin(request.session, target, now=self._clock(), random=self._random)
        try:
            address = await self._provider.login_address(begun, self._callback(request))
        except LoginFailed as error:
            return self._failed(request, target, error)
        return RedirectResponse(address, 303)

    async def finish(self, request: Request) -> Response:
        """Begin a session of whom the provider vouches for. Nothing of the session before stays."""
        state = request.query_params.get("state", "")
        begun = pending.take(request.session, state, now=self._clock())
        target = begun.target if begun else "/"
        wait_s = self._wait_s(request)
        if wait_s:
            return self._too_often(request, target, wait_s)
        try:
            if begun is None:
                raise problems.not_begun(self._configuration.title)
            session = await self._vouched_for(request, begun)
        except LoginFailed as error:
            return self._failed(request, target, error)
        request.session.clear()
        request.session.update(session)
        return RedirectResponse(target, 303)

    async def leave(self, request: Request) -> Response:
        """Send the browser to where the provider ends its own session, if it says where."""
        wait_s = self._wait_s(request)
        if wait_s:
            return self._too_often(request, "/", wait_s)
        try:
            address = await self._provider.logout_address(self._origin(request) + LOGIN)
        except LoginFailed as error:
            return self._failed(request, "/", error)
        return RedirectResponse(address, 303)

    async def _vouched_for(self, request: Request, begun: Pending) -> dict[str, object]:
        """Return a new session. Raises LoginFailed."""
        member = await self._provider.member(request.query_params, begun, self._callback(request))
        if member.role is None:
            log.warning("login_refused", subject=member.subject, reason="no_role")
            raise problems.no_role(self._configuration.title, member.name)
        log.info(
            "logged_in",
            subject=member.subject,
            role=member.role,
            by="oidc",
            client=clients.address(request),
        )
        return self._sessions.begin_for(member, self._configuration)

    def _callback(self, request: Request) -> str:
        return self._origin(request) + OIDC_CALLBACK

    def _origin(self, request: Request) -> str:
        """Return the console's address as the browser knows it."""
        if self._configuration.console_url is not None:
            return self._configuration.console_url
        scheme = "https" if self._configuration.behind_tls else "http"
        return f"{scheme}://{request.headers['host']}"

    def _wait_s(self, request: Request) -> int:
        return self._throttle.take({clients.network(request): TRIES_PER_ADDRESS})

    def _too_often(self, request: Request, target: str, wait_s: int) -> Response:
        return self._page.render(request, target, error=TOO_OFTEN, status=429, retry_after_s=wait_s)

    def _failed(self, request: Request, target: str, error: LoginFailed) -> Response:
        if self._sampler.lets_through(error.reason):
            log.warning(
                "login_failed",
                reason=error.reason,
                by="oidc",
                client=clients.address(request),
                left_out=self._sampler.left_out(error.reason),
            )
        return self._page.render(request, target, error=str(error), status=int(error.status))
