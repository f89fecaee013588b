"""Login with a name and a password, and logout."""

import time
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network, ip_address

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.templating import Jinja2Templates

from ingest import logs
from ingest.console.auth.errors import AuthError
from ingest.console.auth.passwords import Passwords
from ingest.console.auth.request_info import LOGIN, local
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
_IPV6_PREFIX = 64  # the smallest network that a subscriber gets
_RETRY_AFTER_S = 5
_LOG_INTERVAL_S = 1.0

WRONG = "The name or the password is wrong."
TOO_OFTEN = "Too many attempts: wait a minute."
NO_USERS = "No users are configured: the console accepts bearer tokens only."

log = logs.logger(__name__)


class Login:
    """The endpoints `/login` and `/logout`."""

    def __init__(
        self,
        passwords: Passwords | None,
        sessions: Sessions | None,
        templates: Jinja2Templates,
        *,
        clock: Callable[[], float],
    ) -> None:
        """Without `passwords` and `sessions` nobody can log in. `clock` returns Unix seconds."""
        self._passwords = passwords
        self._sessions = sessions
        self._templates = templates
        self._throttle = Throttle(window_s=WINDOW_S, max_keys=_MAX_KEYS, clock=clock)
        self._sampler = logs.Sampler(interval_s=_LOG_INTERVAL_S, clock=time.monotonic)

    async def show(self, request: Request) -> Response:
        """Return the form. A user who is logged in is redirected."""
        back = local(request.query_params.get("next"))
        if request.user.is_authenticated:
            return RedirectResponse(back, 303)
        return self._page(request, back, error=None if self._passwords else NO_USERS)

    async def log_in(self, request: Request) -> Response:
        """Check the password and begin a session."""
        form = await forms.read(request)
        name, password = forms.text_field(form, "name").strip(), forms.text_field(form, "password")
        back = local(forms.text_field(form, "next"))
        if self._passwords is None or self._sessions is None:
            return self._page(request, back, error=NO_USERS, status=403)
        limits = _limits(name, request)
        wait_s = self._throttle.take(limits)
        if wait_s:
            self._log_throttled(request)
            return self._page(request, back, error=TOO_OFTEN, status=429, retry_after_s=wait_s)
        try:
            user = await self._passwords.check(name, password)
        except AuthError as error:
            self._throttle.give_back(limits)
            status = int(error.status)
            return self._page(
                request, back, error=str(error), status=status, retry_after_s=_RETRY_AFTER_S
            )
        if user is None:
            log.warning("login_failed", reason="wrong_credentials", client=_address(request))
            return self._page(request, back, error=WRONG, status=403)
        self._throttle.give_back(limits)
        log.info("logged_in", user=user.name, client=_address(request))
        request.session.clear()
        request.session.update(await self._sessions.begin(user))
        return RedirectResponse(back, 303)

    async def log_out(self, request: Request) -> Response:
        """End the session everywhere, also where its cookie was copied to."""
        if self._sessions is not None and request.session:
            await self._sessions.end(request.session)
            request.session.clear()
        return RedirectResponse(LOGIN, 303)

    def _page(
        self,
        request: Request,
        back: str,
        *,
        error: str | None,
        status: int = 200,
        retry_after_s: int | None = None,
    ) -> Response:
        headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        context = {"next": back, "error": error, "identity": None}
        return self._templates.TemplateResponse(request, "login.html", context, status, headers)

    def _log_throttled(self, request: Request) -> None:
        if self._sampler.lets_through("throttled"):
            log.warning(
                "login_failed",
                reason="throttled",
                client=_address(request),
                left_out=self._sampler.left_out("throttled"),
            )


def _limits(name: str, request: Request) -> dict[str, int]:
    """Return the limits of the three keys that attempts are counted by."""
    prefix, network = name[: _NAME_LENGTH + 1], _network(_address(request))
    return {
        f"both {network} {prefix}": TRIES_PER_NAME_AND_ADDRESS,
        f"name {prefix}": TRIES_PER_NAME,
        f"address {network}": TRIES_PER_ADDRESS,
    }


def _address(request: Request) -> str:
    return request.client.host if request.client else "-"


def _network(address: str) -> str:
    """Return what one attacker controls: an address, or with IPv6 a whole network."""
    try:
        parsed = ip_address(address)
    except ValueError:  # a trusted proxy may forward any text
        return address[:_NAME_LENGTH]
    if isinstance(parsed, IPv6Address) and not parsed.ipv4_mapped:
        return str(IPv6Network((int(parsed), _IPV6_PREFIX), strict=False))
    return address
