"""The console's forms: how they are read, and their fields."""

import asyncio
from http import HTTPStatus
from uuid import UUID

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from ingest.console.errors import BadRequest
from ingest.console.ui.paths import parse_uuid

MAX_BYTES = 1024 * 1024
"""The largest form, and the largest body of an API request."""
MIN_RATE, MAX_RATE = 0.001, 1_000_000
"""Jobs per second that a bulk action may be limited to."""
_DEADLINE_S = 10.0


async def read(request: Request) -> FormData:
    """Return a form, once all of it has arrived.

    Raises:
        HTTPException: it did not arrive in time, the browser disconnected, or it is not a form.
    """
    try:
        async with asyncio.timeout(_DEADLINE_S):
            return await request.form()
    except TimeoutError:
        raise HTTPException(HTTPStatus.REQUEST_TIMEOUT) from None
    except ClientDisconnect:
        raise HTTPException(HTTPStatus.BAD_REQUEST) from None


def text_field(form: FormData, name: str) -> str:
    """Return a field's text; a missing field and a file are empty."""
    value = form.get(name, "")
    return value if isinstance(value, str) else ""


def event_ids(form: FormData) -> tuple[UUID, ...]:
    """Return the ids of the selected events.

    Raises:
        BadRequest: one of them is not an id.
    """
    texts = [value for value in form.getlist("id") if isinstance(value, str)]
    ids = tuple(filter(None, map(parse_uuid, texts)))
    if len(ids) != len(texts):
        raise BadRequest("A selected event has an invalid id.", reason="bad_id")
    return ids


def rate_field(form: FormData, name: str) -> float | None:
    """Return jobs per second; None: the field is empty.

    Raises:
        BadRequest: it is not a number, or out of range.
    """
    text = text_field(form, name)
    if not text:
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not MIN_RATE <= rate <= MAX_RATE:
        raise BadRequest("The rate must be a number of jobs per second.", reason="bad_rate")
    return rate
