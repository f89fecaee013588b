"""The console's errors, and the one response that pages and API give to each."""

from dataclasses import dataclass
from http import HTTPStatus

from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolExhausted
from starlette.exceptions import HTTPException

from ingest import logs
from ingest.errors import AlreadyThere, IngestError, InvalidName, KeyInUse, KeyMisused, NotFound
from ingest.resending import CannotResend, NotStored
from ingest.store import causes
from ingest.store.causes import Cause

log = logs.logger(__name__)


class BadRequest(IngestError):
    """Report a request that makes no sense: 400."""


class NotPossible(IngestError):
    """Report a request that makes sense and that the present state forbids: 409."""


_STATUSES: dict[type[IngestError], HTTPStatus] = {
    AlreadyThere: HTTPStatus.CONFLICT,
    InvalidName: HTTPStatus.BAD_REQUEST,
    CannotResend: HTTPStatus.CONFLICT,
    NotStored: HTTPStatus.SERVICE_UNAVAILABLE,
    BadRequest: HTTPStatus.BAD_REQUEST,
    KeyInUse: HTTPStatus.CONFLICT,
    KeyMisused: HTTPStatus.UNPROCESSABLE_ENTITY,
    NotFound: HTTPStatus.NOT_FOUND,
    NotPossible: HTTPStatus.CONFLICT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorResponse:
    """What pages and API say of an error."""

    status: HTTPStatus
    code: str
    """A slug for programs."""
    sentence: str
    advice: str | None = None


_BUSY = ErrorResponse(
    status=HTTPStatus.SERVICE_UNAVAILABLE,
    code="busy",
    sentence="Another transaction holds a lock that this needs.",
    advice="Try again in a moment.",
)
_BY_REASON = {
    "took_too_long": ErrorResponse(
        status=HTTPStatus.SERVICE_UNAVAILABLE,
        code="took_too_long",
        sentence="This took too long and was stopped.",
        advice="Add a filter, for example by time.",
    ),
    "busy": _BUSY,
    "lock_not_available": _BUSY,
    "deadlock": _BUSY,
    "not_migrated": ErrorResponse(
        status=HTTPStatus.SERVICE_UNAVAILABLE,
        code="not_migrated",
        sentence="The database is not migrated.",
        advice="Run ingest migrate.",
    ),
}
_SENDERS_RETRY = "Until then deliveries are answered 503, and senders retry."
_BUG = ErrorResponse(
    status=HTTPStatus.INTERNAL_SERVER_ERROR,
    code="internal_error",
    sentence="This is a bug in ingest.",
    advice="The console's log says more.",
)


def describe(error: Exception) -> ErrorResponse:
    """Return the response to an error. An unexpected error is logged."""
    if isinstance(error, HTTPException):
        return _of_http(HTTPStatus(error.status_code))
    if isinstance(error, IngestError):
        status = _STATUSES.get(type(error), HTTPStatus.BAD_REQUEST)
        return ErrorResponse(status=status, code=error.reason, sentence=str(error))
    if isinstance(error, PoolExhausted | TimeoutError):
        return _BUSY
    if isinstance(error, SQLAlchemyError):
        cause = causes.explain(error)
        if cause.reason in _BY_REASON:
            return _BY_REASON[cause.reason]
        if cause.is_known or isinstance(error, OperationalError):
            return _of_database(cause)
    log.error("request_failed", exc_info=error)
    return _BUG


def _of_database(cause: Cause) -> ErrorResponse:
    return ErrorResponse(
        status=HTTPStatus.SERVICE_UNAVAILABLE,
        code=cause.reason,
        sentence=cause.sentence,
        advice=None if cause.reason == "privilege_missing" else _SENDERS_RETRY,
    )


def _of_http(status: HTTPStatus) -> ErrorResponse:
    """Return the response to an error of the routes, such as an unknown path."""
    if status is HTTPStatus.NOT_FOUND:
        return ErrorResponse(
            status=status,
            code="not_found",
            sentence="There is nothing at this address.",
            advice="Search the events for it.",
        )
    return ErrorResponse(status=status, code=status.name.lower(), sentence=f"{status.phrase}.")
