"""How a refusal is told: to a program as JSON, to a person as a sentence or by the login page."""

import re
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import Scope

from ingest.console.access.incoming import LOGIN, SAFE_METHODS, is_api, local
from ingest.console.access.refusals import Refusal, Unauthenticated

_PAGE = re.compile(r"https?://[^/?#]+(?P<target>/[^#]*)")


def answer(refusal: Refusal, scope: Scope, *, target: str) -> Response:
    """The response; `target` is the path and query that were asked for."""
    if isinstance(refusal, Unauthenticated):
        return _ask_for_login(refusal, scope, target)
    if is_api(scope["path"]):
        return JSONResponse({"error": refusal.reason, "message": str(refusal)}, refusal.status)
    return PlainTextResponse(f"{refusal}\n", refusal.status)


def _ask_for_login(refusal: Unauthenticated, scope: Scope, target: str) -> Response:
    headers = Headers(scope=scope)
    challenge = {"WWW-Authenticate": "Bearer"}
    if is_api(scope["path"]):
        body = {"error": "unauthenticated", "message": str(refusal)}
        return JSONResponse(body, refusal.status, challenge)
    if refusal.has_bearer:
        return PlainTextResponse(f"{refusal}\n", refusal.status, challenge)
    if "hx-request" in headers:
        page = _PAGE.match(headers.get("hx-current-url", ""))
        back = page["target"] if page else "/"
        return Response(status_code=refusal.status, headers={"HX-Redirect": _login(back)})
    return RedirectResponse(_login(target if scope["method"] in SAFE_METHODS else "/"), 303)


def _login(back: str) -> str:
    """The login page, which leads back to where somebody was."""
    back = local(back)
    return LOGIN if back == "/" else f"{LOGIN}?next={quote(back, safe='/')}"
