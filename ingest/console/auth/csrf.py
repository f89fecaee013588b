"""Protection against cross-site request forgery: changes come from pages of the console's own."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ingest.console.auth.errors import Forbidden
from ingest.console.auth.request_info import SAFE_METHODS

_OWN_SITE = ("same-origin", "none")


class CrossOriginProtection:
    """ASGI middleware: refuses changes that another site's page has a browser ask for.

    The algorithm is Filippo Valsorda's (https://words.filippo.io/csrf/), that of Go's
    `http.CrossOriginProtection`. It needs no token in forms and no cookie. The first rule decides
    that applies:

    1. A safe method changes nothing: it passes.
    2. A bearer token without a cookie passes: no browser adds one by itself.
    3. A browser that sends Sec-Fetch-Site says where the page is from: `same-origin` passes, and
       `none`, which is a person's own doing.
    4. A browser that sends Origin alone, as old ones do, and all where the console is neither on
       TLS nor on this machine: the origin has to be the host that is asked.
    5. A request with neither comes from a program, which nobody can lead astray: it passes.
    """

    def __init__(self, app: ASGIApp, *, behind_tls: bool) -> None:
        """`behind_tls`: the console's pages come over TLS, so that an origin without is another."""
        self._app = app
        self._schemes = ("https",) if behind_tls else ("http", "https")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in SAFE_METHODS:
            self._check(Headers(scope=scope))
        await self._app(scope, receive, send)

    def _check(self, headers: Headers) -> None:
        """Raise Forbidden if another site's page is where a change comes from."""
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
