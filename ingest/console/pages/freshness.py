"""How a page tells a browser as of when it is, and that nothing of it has changed since."""

import hashlib
from datetime import datetime
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from ingest.console.auth.request_info import is_refresh
from ingest.console.ui.formats import iso, utc

REFRESH_S = 5.0
"""How often a page asks for itself again, unless it says otherwise (refresh.js)."""
AS_OF = "X-As-Of"
_TAG_BYTES = 12


def unless_known(request: Request, page: Response, as_of: datetime) -> Response:
    """Return a page with a tag of what it shows, or 304 if a refresh names that tag.

    Only the time as of which it is differs then. What it costs to read is spent all the same; what
    is saved is to send it, to parse it and to compare it in each browser.
    """
    shown = bytes(page.body)
    for spelled in (iso(as_of), utc(as_of)):
        shown = shown.replace(spelled.encode(), b"")
    tag = f'"{hashlib.blake2b(shown, digest_size=_TAG_BYTES).hexdigest()}"'
    headers = {"ETag": tag, AS_OF: iso(as_of)}
    if is_refresh(request) and request.headers.get("if-none-match") == tag:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    page.headers.update(headers)
    return page
