"""Why a request is refused."""

from http import HTTPStatus

from ingest.errors import IngestError


class Refusal(IngestError):
    """The request is answered by the access control, and the application never sees it."""

    def __init__(self, message: str, *, reason: str, status: HTTPStatus) -> None:
        super().__init__(message, reason=reason)
        self.status = status


class Unauthenticated(Refusal):
    """Nobody knows who asks: 401, or the login page."""

    def __init__(self, message: str, *, reason: str, has_bearer: bool) -> None:
        """`has_bearer`: it came with a token, so it is no browser that could log in."""
        super().__init__(message, reason=reason, status=HTTPStatus.UNAUTHORIZED)
        self.has_bearer = has_bearer


class Forbidden(Refusal):
    """It is known who asks, or it does not matter: not this, not from there: 403."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message, reason=reason, status=HTTPStatus.FORBIDDEN)
