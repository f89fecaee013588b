"""What senders are answered."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import NamedTuple
from uuid import UUID

from ingest.errors import (
    BodyTooLarge,
    BodyTooSlow,
    IngestError,
    InvalidEnvelope,
    InvalidSignature,
    StorageUnavailable,
    TooManyBodies,
    UnknownSource,
)
from ingest.sources.base import Answer

STATUSES: Mapping[type[IngestError], HTTPStatus] = {
    InvalidEnvelope: HTTPStatus.BAD_REQUEST,
    InvalidSignature: HTTPStatus.UNAUTHORIZED,
    UnknownSource: HTTPStatus.NOT_FOUND,
    BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    BodyTooSlow: HTTPStatus.SERVICE_UNAVAILABLE,
    TooManyBodies: HTTPStatus.SERVICE_UNAVAILABLE,
    StorageUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}


class Response(NamedTuple):
    """A status, a body, and the headers that not every answer has."""

    status: HTTPStatus
    body: bytes
    more_headers: Sequence[tuple[bytes, bytes]] = ()
    content_type: bytes = b"application/json"


def success(answer: Answer) -> Response:
    """Return a source's answer to what it sent."""
    return Response(HTTPStatus.OK, answer.body, content_type=answer.content_type)


def refusal(error: IngestError, request_id: UUID, *, retry_after_s: int) -> Response:
    """Return the answer to a request that is refused."""
    status = STATUSES[type(error)]
    body = error_body(error.reason, str(error), request_id)
    if status is not HTTPStatus.SERVICE_UNAVAILABLE:
        return Response(status, body)
    return Response(status, body, [(b"retry-after", str(retry_after_s).encode())])


def fault(request_id: UUID) -> Response:
    """Return the answer when a bug of ours is to blame."""
    body = error_body("internal", "This is our fault; try again.", request_id)
    return Response(HTTPStatus.INTERNAL_SERVER_ERROR, body)


def error_body(code: str, message: str, request_id: UUID) -> bytes:
    """Return an error as the senders' own API spells it."""
    return json.dumps({"error": code, "message": message, "request_id": str(request_id)}).encode()


def headers(response: Response, request_id: UUID) -> list[tuple[bytes, bytes]]:
    """Return all headers of an answer."""
    return [
        (b"content-type", response.content_type),
        (b"content-length", str(len(response.body)).encode()),
        (b"x-request-id", str(request_id).encode()),
        *response.more_headers,
    ]
