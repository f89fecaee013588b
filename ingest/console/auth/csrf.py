"""Protection against cross-site request forgery: only the console's own pages make changes."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ingest.console.auth.errors import Forbidden
from ingest.console.auth.request_info import SAFE_METHODS

_OWN_SITE = ("same-origin", "none")


class CrossOriginProtection:
    """ASGI middleware that refuses changes which another site's page makes a browser request.

    The algorithm is Filippo Valsorda's (https://words.filippo.io/csrf/), that of Go's
    `http.CrossOriginProtection`. It needs no token in forms and no cookie. The first rule that
    applies decides:

    1. A safe method passes, since it changes nothing.
    2. A bearer token without a cookie passes, since no browser adds a token by itself.
    3. With Sec-Fetch-Site, which says where the page is from, `same-origin` passes, and `none`,
       which means that the person opened it directly.
    4. With Origin alone, the origin must be the requested host. Old browsers send it alone, and all
       browsers do where the console is neither on TLS nor on this machine.
    5. A request with neither header passes. It comes from a program, which no page can misuse.
    """

    def __init__(self, app: ASGIApp, *, behind_tls: bool) -> None:
        """`behind_tls`: the pages are served over TLS, and an origin without TLS is foreign."""
        self._app = app
        self._schemes = ("https",) if behind_tls else ("http", "https")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in SAFE_METHODS:
            self._check(Headers(scope=scope))
        await self._app(scope, receive, send)

    def _check(self, headers: Headers) -> None:
        """Raise Forbidden if another site's page requests a change."""
        scheme, _, _token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and "cookie" not in headers:
            return
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site is not None:
            if site not in _OWN_SITE:
                raise Forbidden("This request comes from another site.", reason="cross_site")
        elif origin is not None and not self._is_own(origin, headers.get("host", "")):
            raise Forbidden("This request comes from another origin.", reason="cross_origin")

    def _is_own(self, origin: str, host: str) -> bool:
        scheme, _, name = origin.lower().partition("://")
        return scheme in self._schemes and name == host.lower()
