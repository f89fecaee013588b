"""Why the access control refuses a request."""

from http import HTTPStatus

from ingest.errors import IngestError


class AuthError(IngestError):
    """The access control answers the request, and the application never sees it."""

    def __init__(self, message: str, *, reason: str, status: HTTPStatus) -> None:
        super().__init__(message, reason=reason)
        self.status = status


class Unauthenticated(AuthError):
    """Nobody is known to ask: 401, or the login page."""

    def __init__(self, message: str, *, reason: str, has_bearer: bool) -> None:
        """`has_bearer`: it came with a token, so it is no browser that could log in."""
        super().__init__(message, reason=reason, status=HTTPStatus.UNAUTHORIZED)
        self.has_bearer = has_bearer


class Forbidden(AuthError):
    """Whoever asks may not do this, or not from there: 403."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message, reason=reason, status=HTTPStatus.FORBIDDEN)
