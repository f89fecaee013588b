"""Forms that are done once, however often they are sent: by a double click, or by Back and again.

Each rendered page has a token, which stands in all of its forms. Token and path together are the
key of the request (ingest.console.services.keyed_requests): what is sent again gets the outcome of
the first. A form without a token, as a program may send it, is done each time.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from starlette.datastructures import FormData
from starlette.responses import Response

from ingest.console.auth.identity import Identity
from ingest.console.errors import BadRequest
from ingest.console.services.keyed_requests import KeyedRequest, KeyedRequests
from ingest.errors import IngestError, KeyInUse, KeyMisused

FIELD = "once"
"""The name of the field with the token."""
_TOKEN = re.compile("[0-9a-f]{32}")
_FORM = re.compile(b'<form method="post".*?(?=</form>)', re.DOTALL)
_WAITS_S = 5.0
"""How long the second of two waits for the outcome of the first: the browser shows only its
answer."""
_LOOKS_EVERY_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a form led to."""

    location: str
    """The page that tells it."""
    action: int | None
    """The number of its entry in the audit log; None: there is none."""


class Shown(IngestError):
    """A form was answered by a page: nothing was changed, and it may be sent again."""

    def __init__(self, page: Response) -> None:
        super().__init__("The form is shown again.", reason="form_shown")
        self.page = page


def mark(page: Response, token: str) -> None:
    """Give each form of a page the token."""
    field = f'<input type="hidden" name="{FIELD}" value="{token}">'.encode()
    page.body = _FORM.sub(lambda form: form[0] + field, bytes(page.body))
    page.headers["content-length"] = str(len(page.body))


def keyed(by: Identity, path: str, form: FormData) -> KeyedRequest | None:
    """Return a form as a request with a key; None: it has no token.

    Raises:
        BadRequest: its token is none.
    """
    token = form.get(FIELD)
    if token is None:
        return None
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise BadRequest("Load the page again, and send its form from there.", reason="bad_token")
    fields = sorted((name, str(value)) for name, value in form.multi_items() if name != FIELD)
    of_path = hashlib.sha256(path.encode()).hexdigest()
    return KeyedRequest(by=by, key=f"{token}-{of_path}", content=json.dumps(fields).encode())


def outcome(
    requests: KeyedRequests, request: KeyedRequest, act: Callable[[], Outcome]
) -> tuple[Outcome, bool]:
    """Return what a form led to, and whether that was before: then `act` is not called.

    Raises:
        KeyInUse: it was sent before, and nobody knows yet what it led to, or never will.
        KeyMisused: it was sent before with other values.
        Exception: whatever `act` raises.
    """
    last_look = time.monotonic() + _WAITS_S
    while True:
        try:
            answer = requests.answer(request, lambda: json.dumps(asdict(act())).encode())
        except KeyInUse as error:
            if time.monotonic() < last_look:
                time.sleep(_LOOKS_EVERY_S)
                continue
            raise KeyInUse(
                "This form was sent before, and it is not known what that led to. If it was minutes"
                " ago, it failed, or its console was stopped in the middle: see in the audit log"
                " whether it was done, then load the page again.",
                reason=error.reason,
            ) from None
        except KeyMisused as error:
            raise KeyMisused(
                "This form was sent already, with other values, and was done. Load its page again"
                " to send it once more.",
                reason=error.reason,
            ) from None
        return Outcome(**json.loads(answer.content)), answer.is_replayed
