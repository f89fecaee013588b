"""Access control: the middleware that every request passes."""

import time
from collections.abc import Callable, Sequence

from pydantic import SecretStr
from sqlalchemy.exc import SQLAlchemyError
from starlette.authentication import has_required_scope
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection
from starlette.routing import Route
from starlette.templating import Jinja2Templates
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from ingest import logs, proxies
from ingest.console import errors
from ingest.console.auth import hosts, request_info
from ingest.console.auth.backend import CredentialsBackend, LoopbackBackend
from ingest.console.auth.credentials import Token, User, parse_tokens, parse_users
from ingest.console.auth.csrf import CrossOriginProtection
from ingest.console.auth.errors import AuthError, Forbidden, Unauthenticated
from ingest.console.auth.headers import SecurityHeaders
from ingest.console.auth.login import Login
from ingest.console.auth.login_page import LoginPage
from ingest.console.auth.oidc import configuration as oidc
from ingest.console.auth.passwords import Passwords
from ingest.console.auth.request_info import FOR_STRANGERS, LOGIN, LOGOUT
from ingest.console.auth.responses import error_response
from ingest.console.auth.roles import Role
from ingest.console.auth.sessions import Sessions, SessionStore, SignedSessions
from ingest.console.ui import forms
from ingest.errors import SettingsError
from ingest.settings import Settings

_POLICY_VIOLATION = 1008
_LOG_INTERVAL_S = 1.0

log = logs.logger(__name__)


def create(
    settings: Settings,
    store: SessionStore,
    *,
    clock: Callable[[], float],
    random: Callable[[int], bytes],
) -> "Auth":
    """Return the access control that the settings describe.

    Args:
        settings: with the users and tokens, if there are any.
        store: what all consoles share of sessions.
        clock: returns Unix time in seconds.
        random: returns that many random bytes.

    Raises:
        SettingsError: the credentials are invalid, or there are none and the console would listen
            where others reach it.
    """
    users = dict(parse_users(_plain(settings.console_users)))
    tokens = list(parse_tokens(_plain(settings.console_tokens)))
    provider = oidc.read(settings)
    is_open = not users and not tokens and provider is None
    if is_open and not hosts.is_loopback(settings.console_host):
        raise SettingsError(
            f"The console refuses to listen on {settings.console_host} without credentials: set "
            "INGEST_CONSOLE_USERS (`ingest console create-user` makes it), INGEST_CONSOLE_TOKENS "
            "(`ingest console create-token`) or INGEST_OIDC_ISSUER.",
            reason="no_credentials",
        )
    sessions = None
    if users or provider is not None:
        sessions = Sessions(users, store, oidc=provider, clock=clock, random=random)
    return Auth(settings, users, tokens, sessions, provider, clock=clock, random=random)


class Auth:
    """The console's access control.

    Without users, tokens and a provider only this machine reaches the console, and everybody on it
    is an operator.
    """

    def __init__(
        self,
        settings: Settings,
        users: dict[str, User],
        tokens: list[Token],
        sessions: Sessions | None,
        provider: oidc.Configuration | None,
        *,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        self._settings = settings
        self._users = users
        self._tokens = tokens
        self._sessions = sessions
        self._provider = provider
        self._clock = clock
        self._random = random

    def reload(self, users: str | None, tokens: str | None) -> None:
        """Replace the users and the tokens by those of the texts; None: leave them.

        A user who is gone, or has another password, is logged out. Whether there are users and
        tokens at all is settled at the start.

        Raises:
            SettingsError: a text cannot be used; nothing has changed.
        """
        fresh_users = self._users if users is None else parse_users(users)
        fresh_tokens = self._tokens if tokens is None else parse_tokens(tokens)
        # In place, because sessions, passwords and the backend share them.
        for name in self._users.keys() - fresh_users.keys():
            del self._users[name]
        self._users.update(fresh_users)
        self._tokens[:] = fresh_tokens

    @property
    def is_open(self) -> bool:
        """Return whether there are no credentials."""
        return not self._users and not self._tokens and self._provider is None

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """Return the application with the access control around it.

        In the application `request.user` is an Identity. On the login page it may be Starlette's
        UnauthenticatedUser. Static files and the probe have no user.
        """
        guarded = self._identified(Check(app, _check_role))
        guarded = CrossOriginProtection(guarded, behind_tls=self._settings.console_tls_proxy)
        named = self._named(Split(request_info.is_static, app, guarded))
        checked = Check(Split(request_info.is_probe, app, named), request_info.check_headers)
        return proxies.behind(
            SecurityHeaders(AnswerAuthErrors(checked)), self._settings.trusted_proxies
        )

    def routes(self, templates: Jinja2Templates) -> list[Route]:
        """Return the routes for logging in and out."""
        passwords = Passwords(self._users, random=self._random) if self._users else None
        page = LoginPage(
            templates,
            has_passwords=passwords is not None,
            provider=self._provider.title if self._provider else None,
        )
        login = Login(passwords, self._sessions, page, clock=self._clock)
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
            *self._provider_routes(page),
        ]

    def _provider_routes(self, page: LoginPage) -> list[Route]:
        if self._provider is None or self._sessions is None:
            return []
        from ingest.console.auth.oidc.login import ProviderLogin  # an extra

        return ProviderLogin(
            self._provider, self._sessions, page, clock=self._clock, random=self._random
        ).routes()

    def _identified(self, app: ASGIApp) -> ASGIApp:
        """Return the application with `request.user`."""
        if self.is_open:
            return AuthenticationMiddleware(app, LoopbackBackend())
        backend = CredentialsBackend(self._tokens, self._sessions)
        identified = AuthenticationMiddleware(app, backend)
        if self._sessions is None:
            return identified
        behind_tls = self._settings.console_tls_proxy
        return SignedSessions(identified, self._sessions, behind_tls=behind_tls)

    def _named(self, app: ASGIApp) -> ASGIApp:
        """Return the application, reachable only by its allowed host names."""
        if self.is_open:
            names: Sequence[str] = hosts.local_names(self._settings.console_host)
            app = Check(app, hosts.check_local)
        else:
            names = [hosts.as_in_header(name) for name in self._settings.console_allowed_hosts] or [
                "*"
            ]
        return TrustedHostMiddleware(app, names, www_redirect=False)


class Check:
    """ASGI middleware that passes a request on unless a check raises an AuthError."""

    def __init__(self, app: ASGIApp, check: Callable[[HTTPConnection], None]) -> None:
        self._app = app
        self._check = check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self._check(HTTPConnection(scope))
        await self._app(scope, receive, send)


class Split:
    """ASGI application that passes some requests to one application and the others to another."""

    def __init__(self, is_of_kind: Callable[[Scope], bool], app: ASGIApp, others: ASGIApp) -> None:
        self._is_of_kind = is_of_kind
        self._app = app
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_of_kind = scope["type"] == "http" and self._is_of_kind(scope)
        await (self._app if is_of_kind else self._others)(scope, receive, send)


class AnswerAuthErrors:
    """ASGI middleware that answers a request which is refused, or cannot be decided on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._sampler = logs.Sampler(interval_s=_LOG_INTERVAL_S, clock=time.monotonic)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await WebSocketClose(_POLICY_VIOLATION)(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except AuthError as error:
            self._log(error)
            await error_response(error, scope)(scope, receive, send)
        except SQLAlchemyError as error:  # an error of the application is answered there
            described = errors.describe(error)
            failed = AuthError(described.sentence, reason=described.code, status=described.status)
            await error_response(failed, scope)(scope, receive, send)

    def _log(self, error: AuthError) -> None:
        if self._sampler.lets_through(error.reason):
            log.info(
                "request_refused",
                reason=error.reason,
                status=int(error.status),
                left_out=self._sampler.left_out(error.reason),
            )


def _check_role(connection: HTTPConnection) -> None:
    """Raise an AuthError for an unknown sender, for a viewer's change, and for a viewer where only
    operators look."""
    path = connection.scope["path"]
    if path in FOR_STRANGERS:
        return
    if not has_required_scope(connection, [Role.VIEWER]):
        raise Unauthenticated(
            "Log in, or send a bearer token.", reason="unauthenticated", has_bearer=False
        )
    if path == LOGOUT or has_required_scope(connection, [Role.OPERATOR]):
        return
    if request_info.is_change(connection.scope):
        raise Forbidden("Viewers are read-only.", reason="role_insufficient")
    if request_info.is_for_operators(path):
        raise Forbidden("This is for operators.", reason="role_insufficient")


def _plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None
