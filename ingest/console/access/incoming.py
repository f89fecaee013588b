"""What the access control looks at in a request."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote

from starlette.types import Scope

from ingest.console.access.refusals import Refusal

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LOGIN, LOGOUT = "/login", "/logout"

# Of two, we could look at one and something before or behind us at the other.
_SINGLE = frozenset(
    {
        b"authorization",
        b"content-type",
        b"cookie",
        b"host",
        b"origin",
        b"sec-fetch-site",
    }
)
# Not "//" and no backslash: a browser takes what follows for a host. No control characters: it
# leaves them out before it looks.
_LOCAL = re.compile(r"/(?:[!-.0-\[\]-~][!-\[\]-~]{0,2000})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A request, as far as it decides who may do what."""

    method: str
    path: str
    target: str
    """Path and query as they were sent."""
    secure: bool
    """It came over TLS."""
    client: str | None
    """The address it came from."""
    headers: Mapping[str, str]
    """By name in lower case."""
    cookies: Mapping[str, str]

    @property
    def changes(self) -> bool:
        """Whether the method is one that changes something."""
        return self.method not in SAFE_METHODS

    @property
    def is_api(self) -> bool:
        """Whether a program asks, which wants JSON."""
        return is_api(self.path)

    @property
    def media_type(self) -> str:
        """Of the body, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


def read(scope: Scope, *, behind_tls: bool) -> Incoming:
    """Look at a request.

    Raises:
        Refusal: a header that decides something is there twice.
    """
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    times = Counter(name for name, _ in headers)
    if any(times[name] > 1 for name in _SINGLE):
        raise Refusal(
            "A header is there twice.", reason="header_repeated", status=HTTPStatus.BAD_REQUEST
        )
    values = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    client = scope.get("client")
    return Incoming(
        method=scope["method"],
        path=scope["path"],
        target=_target(scope),
        secure=is_secure(scope, behind_tls=behind_tls),
        client=client[0] if client else None,
        headers=values,
        cookies=_once(values.get("cookie", "").split(";")),
    )


def is_secure(scope: Scope, *, behind_tls: bool) -> bool:
    """Whether the browser speaks TLS, with us or with what stands before us."""
    return behind_tls or scope.get("scheme") == "https"


def is_api(path: str) -> bool:
    """Whether it is an address for programs."""
    return path == "/api" or path.startswith("/api/")


def local(target: str | None) -> str:
    """A path of this console: what was given if it is one, `/` otherwise."""
    return target if target is not None and _LOCAL.fullmatch(target) else "/"


def _target(scope: Scope) -> str:
    path = scope.get("raw_path") or quote(scope["path"]).encode()
    query = scope.get("query_string", b"")
    target: bytes = path + b"?" + query if query else path
    return target.decode("latin-1")


def _once(pairs: Iterable[str]) -> Mapping[str, str]:
    """Cookies by name. Of one that is there twice neither counts: the second may have been planted
    by another site of the same host."""
    split = [pair.strip().partition("=") for pair in pairs]
    times = Counter(name for name, _, _ in split)
    return {name: value for name, _, value in split if times[name] == 1}
