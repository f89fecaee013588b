"""Responses to refused requests: JSON for programs, a sentence or the login page for people."""

from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import Scope

from ingest.console.auth.errors import AuthError, Unauthenticated
from ingest.console.auth.request_info import LOGIN, REFRESH, is_api, is_change, local, target


def error_response(error: AuthError, scope: Scope) -> Response:
    """Return the response to a request that the access control refuses."""
    if isinstance(error, Unauthenticated):
        return _ask_for_login(error, scope)
    if is_api(scope["path"]):
        return JSONResponse({"error": error.reason, "message": str(error)}, error.status)
    return PlainTextResponse(f"{error}\n", error.status)


def _ask_for_login(error: Unauthenticated, scope: Scope) -> Response:
    challenge = {"WWW-Authenticate": "Bearer"}
    if is_api(scope["path"]):
        body = {"error": "unauthenticated", "message": str(error)}
        return JSONResponse(body, error.status, challenge)
    if error.has_bearer:
        return PlainTextResponse(f"{error}\n", error.status, challenge)
    if REFRESH in Headers(scope=scope):  # the page says so itself, and leads to the login
        return Response(status_code=error.status)
    return RedirectResponse(_login("/" if is_change(scope) else target(scope)), 303)


def _login(back: str) -> str:
    """Return the login page's address. The login then redirects to `back`."""
    back = local(back)
    return LOGIN if back == "/" else f"{LOGIN}?next={quote(back, safe='/')}"
