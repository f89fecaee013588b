"""The errors of authentication and authorization."""

from http import HTTPStatus

from ingest.errors import IngestError


class AuthError(IngestError):
    """A request is refused before the application sees it."""

    def __init__(self, message: str, *, reason: str, status: HTTPStatus) -> None:
        super().__init__(message, reason=reason)
        self.status = status


class Unauthenticated(AuthError):
    """The sender is unknown: 401, or the login page."""

    def __init__(self, message: str, *, reason: str, has_bearer: bool) -> None:
        """`has_bearer`: the request has a token, so its sender cannot use the login page."""
        super().__init__(message, reason=reason, status=HTTPStatus.UNAUTHORIZED)
        self.has_bearer = has_bearer


class Forbidden(AuthError):
    """The sender may not do this, or not from there: 403."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message, reason=reason, status=HTTPStatus.FORBIDDEN)
