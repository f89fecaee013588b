"""Reading the console's forms."""

import asyncio
from http import HTTPStatus

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

MAX_BYTES = 1024 * 1024
"""Of a form, and of a body of the API."""
_DEADLINE_S = 10.0


async def read(request: Request) -> FormData:
    """Return a form, whole.

    Raises:
        HTTPException: it did not arrive in time, or the browser went away, or it is no form.
    """
    try:
        async with asyncio.timeout(_DEADLINE_S):
            return await request.form()
    except TimeoutError:
        raise HTTPException(HTTPStatus.REQUEST_TIMEOUT) from None
    except ClientDisconnect:
        raise HTTPException(HTTPStatus.BAD_REQUEST) from None
