"""Login with a name and a password, and logout."""

import time
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ingest import logs
from ingest.console.auth import clients
from ingest.console.auth.errors import AuthError
from ingest.console.auth.login_page import NO_USERS, LoginPage
from ingest.console.auth.passwords import Passwords
from ingest.console.auth.request_info import LEFT, LOGIN, local
from ingest.console.auth.sessions import Sessions
from ingest.console.auth.throttle import Throttle
from ingest.console.ui import forms

WINDOW_S = 60.0
TRIES_PER_NAME_AND_ADDRESS = 5
TRIES_PER_NAME = 30
"""From all addresses together. It is few for guessing, and too many to lock somebody out soon."""
TRIES_PER_ADDRESS = 30
"""Behind a proxy that does not forward addresses, everybody shares one."""

_MAX_KEYS = 10_000
_NAME_LENGTH = 64
_RETRY_AFTER_S = 5
_LOG_INTERVAL_S = 1.0

WRONG = "The name or the password is wrong."
TOO_OFTEN = "Too many attempts: wait a minute."

log = logs.logger(__name__)


class Login:
    """The endpoints `/login` and `/logout`."""

    def __init__(
        self,
        passwords: Passwords | None,
        sessions: Sessions | None,
        page: LoginPage,
        *,
        clock: Callable[[], float],
    ) -> None:
        """Without `passwords` and `sessions` nobody can log in. `clock` returns Unix seconds."""
        self._passwords = passwords
        self._sessions = sessions
        self._page = page
        self._throttle = Throttle(window_s=WINDOW_S, max_keys=_MAX_KEYS, clock=clock)
        self._sampler = logs.Sampler(interval_s=_LOG_INTERVAL_S, clock=time.monotonic)

    async def show(self, request: Request) -> Response:
        """Return the form. A user who is logged in is redirected."""
        back = local(request.query_params.get("next"))
        if request.user.is_authenticated:
            return RedirectResponse(back, 303)
        return self._page.render(request, back, has_left="left" in request.query_params)

    async def log_in(self, request: Request) -> Response:
        """Check the password and begin a session."""
        form = await forms.read(request)
        name, password = forms.text_field(form, "name").strip(), forms.text_field(form, "password")
        back = local(forms.text_field(form, "next"))
        if self._passwords is None or self._sessions is None:
            return self._page.render(request, back, error=NO_USERS, status=403)
        limits = _limits(name, request)
        wait_s = self._throttle.take(limits)
        if wait_s:
            self._log_throttled(request)
            return self._page.render(
                request, back, error=TOO_OFTEN, status=429, retry_after_s=wait_s
            )
        try:
            user = await self._passwords.check(name, password)
        except AuthError as error:
            self._throttle.give_back(limits)
            status = int(error.status)
            return self._page.render(
                request, back, error=str(error), status=status, retry_after_s=_RETRY_AFTER_S
            )
        if user is None:
            log.warning("login_failed", reason="wrong_credentials", client=clients.address(request))
            return self._page.render(request, back, error=WRONG, status=403)
        self._throttle.give_back(limits)
        log.info("logged_in", user=user.name, client=clients.address(request))
        request.session.clear()
        request.session.update(await self._sessions.begin(user))
        return RedirectResponse(back, 303)

    async def log_out(self, request: Request) -> Response:
        """End the session everywhere, also where its cookie was copied to."""
        if self._sessions is not None and request.session:
            await self._sessions.end(request.session)
            request.session.clear()
        return RedirectResponse(LEFT if request.user.via == "oidc" else LOGIN, 303)

    def _log_throttled(self, request: Request) -> None:
        if self._sampler.lets_through("throttled"):
            log.warning(
                "login_failed",
                reason="throttled",
                client=clients.address(request),
                left_out=self._sampler.left_out("throttled"),
            )


def _limits(name: str, request: Request) -> dict[str, int]:
    """Return the limits of the three keys that attempts are counted by."""
    prefix, network = name[: _NAME_LENGTH + 1], clients.network(request)
    return {
        f"both {network} {prefix}": TRIES_PER_NAME_AND_ADDRESS,
        f"name {prefix}": TRIES_PER_NAME,
        f"address {network}": TRIES_PER_ADDRESS,
    }
