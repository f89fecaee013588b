"""What the access control reads from a request."""

import re
from collections import Counter
from http import HTTPStatus
from urllib.parse import quote

from starlette.requests import HTTPConnection
from starlette.types import Scope

from ingest.console.auth.errors import AuthError

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LOGIN, LOGOUT = "/login", "/logout"
LEFT = f"{LOGIN}?left"
"""Where somebody is led who has left, and may still be logged in at the provider."""
OIDC_LOGIN, OIDC_CALLBACK, OIDC_LOGOUT = "/login/oidc", "/login/oidc/callback", "/logout/oidc"
FOR_STRANGERS = frozenset({LOGIN, OIDC_LOGIN, OIDC_CALLBACK, OIDC_LOGOUT})
"""Paths that nobody need be known for."""
LIVE = "/health/live"
_FOR_OPERATORS = re.compile(r"(?:/api/v1)?/erasures(?:/|$)|/events/[^/]+/edit$")
"""Paths that viewers may not even read: what erases persons, and what edits a body."""
STATIC = "/static/"
REFRESH = "x-refresh"
"""The header of a page's requests for itself."""

# If one is repeated, the console could read one and a proxy the other.
_SINGLE = frozenset(
    {
        *(b"authorization", b"content-type", b"cookie", b"host", b"idempotency-key", b"origin"),
        b"sec-fetch-site",
    }
)
# Neither "//" nor a backslash, since a browser reads a host name after them. No control characters,
# since a browser drops them first.
_LOCAL = re.compile(r"/(?:[!-.0-\[\]-~][!-\[\]-~]{0,2000})?")


def check_headers(connection: HTTPConnection) -> None:
    """Raise an AuthError for a request in which a header that matters here is repeated."""
    counts = Counter(name for name, _ in connection.scope["headers"])
    if any(counts[name] > 1 for name in _SINGLE):
        raise AuthError(
            "A header is repeated.", reason="header_repeated", status=HTTPStatus.BAD_REQUEST
        )


def has_twice(connection: HTTPConnection, cookie: str) -> bool:
    """Return whether a cookie is repeated. Another site on the same host may have set one."""
    pairs = connection.headers.get("cookie", "").split(";")
    return sum(pair.partition("=")[0].strip() == cookie for pair in pairs) > 1


def is_change(scope: Scope) -> bool:
    """Return whether a request's method may change something."""
    return scope["method"] not in SAFE_METHODS


def is_for_operators(path: str) -> bool:
    """Return whether a path is for operators alone, to read as well."""
    return _FOR_OPERATORS.match(path) is not None


def is_probe(scope: Scope) -> bool:
    """Return whether a request is the liveness probe."""
    return scope["path"] == LIVE and not is_change(scope)


def is_static(scope: Scope) -> bool:
    """Return whether a request reads a static file."""
    return scope["path"].startswith(STATIC) and not is_change(scope)


def is_refresh(connection: HTTPConnection) -> bool:
    """Return whether a page asks for itself again (refresh.js)."""
    return REFRESH in connection.headers


def is_api(path: str) -> bool:
    """Return whether a path belongs to the API, which answers in JSON."""
    return path == "/api" or path.startswith("/api/")


def local(target: str | None) -> str:
    """Return a path of this console: `target` if it is one, `/` otherwise."""
    return target if target is not None and _LOCAL.fullmatch(target) else "/"


def target(scope: Scope) -> str:
    """Return the path and query of a request as they were sent."""
    path = scope.get("raw_path") or quote(scope["path"]).encode()
    query = scope.get("query_string", b"")
    sent: bytes = path + b"?" + query if query else path
    return sent.decode("latin-1")
