"""Who may do what in the console: the door that every request goes through."""

import time
from collections.abc import Callable, Mapping, Sequence

from pydantic import SecretStr
from starlette.routing import Route
from starlette.templating import Jinja2Templates
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from ingest import proxies, telemetry
from ingest.console import forms
from ingest.console.access import cookies, hosts, incoming
from ingest.console.access.answers import answer
from ingest.console.access.credentials import Token, User, find_token, parse_tokens, parse_users
from ingest.console.access.csrf import CrossOriginProtection
from ingest.console.access.headers import STATIC, SecurityHeaders
from ingest.console.access.identity import Identity, Role
from ingest.console.access.incoming import LOGIN, LOGOUT, Incoming
from ingest.console.access.login import Login
from ingest.console.access.passwords import Passwords
from ingest.console.access.refusals import Forbidden, Refusal, Unauthenticated
from ingest.console.access.sessions import Sessions, secret_of
from ingest.errors import SettingsError
from ingest.settings import Settings

LIVE = "/health/live"

_LOCAL = Identity(name="local", role=Role.OPERATOR, via="loopback")
_POLICY_VIOLATION = 1008
_LOG_INTERVAL_S = 1.0

log = telemetry.logger(__name__)


def create(
    settings: Settings, *, clock: Callable[[], float], random: Callable[[int], bytes]
) -> "Access":
    """The access control that the settings ask for. `clock` gives Unix time in seconds, `random`
    that many random bytes.

    Raises:
        SettingsError: the credentials are no credentials, or there are none and the console is to
            listen where others reach it.
    """
    users = parse_users(_plain(settings.console_users))
    tokens = parse_tokens(_plain(settings.console_tokens))
    if not users and not tokens and not hosts.is_loopback(settings.console_host):
        raise SettingsError(
            f"The console refuses to listen on {settings.console_host} without credentials: set "
            "INGEST_CONSOLE_USERS (`ingest console-password` makes it) or INGEST_CONSOLE_TOKENS "
            "(`ingest console-token`).",
            reason="no_credentials",
        )
    return Access(
        users,
        tokens,
        allowed_hosts=frozenset(name.lower() for name in settings.console_hosts),
        behind_tls=settings.console_behind_tls,
        trusted_proxies=settings.trusted_proxies,
        clock=clock,
        random=random,
    )


class Access:
    """The console's access control. Without users and tokens everybody who reaches the console is
    its operator, and only this machine reaches it."""

    def __init__(
        self,
        users: Mapping[str, User],
        tokens: tuple[Token, ...],
        *,
        allowed_hosts: frozenset[str],
        behind_tls: bool,
        trusted_proxies: Sequence[str],
        clock: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        self.users = users
        self.tokens = tokens
        self.allowed_hosts = allowed_hosts
        self.behind_tls = behind_tls
        self.trusted_proxies = trusted_proxies
        self.random = random
        secret = secret_of(users, random=random)
        self.sessions = Sessions(users, secret=secret, clock=clock, random=random)
        self._clock = clock

    @property
    def is_open(self) -> bool:
        """Whether nobody logs in."""
        return not self.users and not self.tokens

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """The application behind the door. It finds an Identity in `request.state.identity` (None
        only on /login, /static and /health/live)."""
        app = CrossOriginProtection(app, behind_tls=self.behind_tls)
        return proxies.behind(SecurityHeaders(Guard(app, self)), self.trusted_proxies)

    def routes(self, templates: Jinja2Templates) -> list[Route]:
        """Logging in and out."""
        login = Login(
            Passwords(self.users, random=self.random) if self.users else None,
            self.sessions,
            templates,
            behind_tls=self.behind_tls,
            clock=self._clock,
        )
        return [
            Route(LOGIN, login.show, methods=["GET"], name="login"),
            Route(
                LOGIN,
                login.log_in,
                methods=["POST"],
                name="log_in",
                max_body_size=forms.MAX_BYTES,
            ),
            Route(LOGOUT, login.log_out, methods=["POST"], name="logout"),
        ]


class Guard:
    """ASGI middleware: lets a request through with who asks in its state, or refuses it. Responses
    pass as they come."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access
        self._refusals = telemetry.Sampler(interval_s=_LOG_INTERVAL_S, clock=time.monotonic)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await WebSocketClose(_POLICY_VIOLATION)(scope, receive, send)
            return
        target = "/"
        try:
            asked = incoming.read(scope, behind_tls=self._access.behind_tls)
            target = asked.target
            identity = self._admit(asked)
            # A scope and a state of this request's own: servers may hand the same ones to the next.
            own = {**scope, "state": {**scope.get("state", {}), "identity": identity}}
            await self._app(own, receive, send)
        except Refusal as refusal:
            self._log(refusal)
            await answer(refusal, scope, target=target)(scope, receive, send)
            return

    def _admit(self, asked: Incoming) -> Identity | None:
        """Decide who asks, and whether they may.

        Raises:
            Refusal: they may not.
        """
        if asked.path == LIVE and not asked.changes:  # a probe names whatever address it knows
            return None
        self._check_host(asked)
        if asked.path.startswith(STATIC) and not asked.changes:
            return None
        identity = self._identify(asked)
        if identity is None and asked.path != LOGIN:
            raise Unauthenticated(
                "Log in, or send a bearer token.", reason="unauthenticated", has_bearer=False
            )
        if identity is not None and asked.changes and asked.path not in (LOGIN, LOGOUT):
            _check_role(identity)
        return identity

    def _check_host(self, asked: Incoming) -> None:
        if self._access.is_open:
            hosts.check_local(asked)
        else:
            hosts.check_allowed(asked, self._access.allowed_hosts)

    def _identify(self, asked: Incoming) -> Identity | None:
        """Who asks. A bearer token that is wrong is not made up for by a cookie."""
        if self._access.is_open:
            return _LOCAL
        scheme, _, presented = asked.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            token = find_token(self._access.tokens, presented.strip())
            if token is None:
                raise Unauthenticated(
                    "The bearer token is unknown.", reason="token_unknown", has_bearer=True
                )
            return Identity(name=token.name, role=token.role, via="token")
        user = self._access.sessions.find(_cookie(asked, cookies.SESSION))
        return Identity(name=user.name, role=user.role, via="session") if user else None

    def _log(self, refusal: Refusal) -> None:
        if self._refusals.lets_through(refusal.reason):
            log.info(
                "request_refused",
                reason=refusal.reason,
                status=int(refusal.status),
                left_out=self._refusals.left_out(refusal.reason),
            )


def _check_role(identity: Identity) -> None:
    if identity.role is not Role.OPERATOR:
        raise Forbidden("A viewer changes nothing.", reason="role_insufficient")


def _cookie(asked: Incoming, name: str) -> str | None:
    return asked.cookies.get(cookies.full_name(name, secure=asked.secure))


def _plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None
