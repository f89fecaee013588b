"""Cross-site request forgery: a change has to come from a page of ours.

A browser says where a request comes from, and the page has a token that is bound to a cookie by our
key. Both are asked for: the first needs a browser that tells, the second a page that keeps secrets.
"""

import asyncio
import hmac
from http import HTTPStatus
from urllib.parse import parse_qsl

from starlette.types import Message, Receive

from ingest.console.access.incoming import Incoming
from ingest.console.access.refusals import Forbidden, Refusal

FIELD = "csrf_token"
HEADER = "x-csrf-token"
FORM = "application/x-www-form-urlencoded"
FORM_MAX_BYTES = 1024 * 1024

_FORM_MAX_FIELDS = 10_000
_FORM_DEADLINE_S = 10.0


def check_site(incoming: Incoming) -> None:
    """What the browser says of where the request comes from, if it says anything, is this console.

    Raises:
        Forbidden: it is somewhere else.
    """
    site = incoming.headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        raise Forbidden("This request comes from another site.", reason="cross_site")
    origin = incoming.headers.get("origin")
    if origin is not None and not _is_own(origin, incoming):
        raise Forbidden("This request comes from another origin.", reason="cross_origin")


def is_program(incoming: Incoming) -> bool:
    """Whether no browser can have been led to send this: no cookie, no word of a site, and JSON,
    which another site's page cannot send without asking us first."""
    named = ("cookie", "origin", "sec-fetch-site")
    return (
        incoming.is_api
        and incoming.media_type == "application/json"
        and not any(name in incoming.headers for name in named)
    )


async def check_token(incoming: Incoming, receive: Receive, expected: str) -> Receive:
    """The request carries the token, in the header or in a form's field. Returns what the body can
    be read from, whole.

    Raises:
        Refusal: it carries none or another, or the form is too long or too slow.
    """
    given = incoming.headers.get(HEADER)
    if given is None and incoming.media_type == FORM:
        body = await _read(receive)
        given = _field(body)
        receive = _from_the_start(body, receive)
    if given is None:
        raise _refused("csrf_token_missing")
    if not hmac.compare_digest(given.encode(), expected.encode()):
        raise _refused("csrf_token_wrong")
    return receive


def _is_own(origin: str, incoming: Incoming) -> bool:
    scheme, _, host = origin.lower().partition("://")
    schemes = ("https",) if incoming.secure else ("http", "https")
    return scheme in schemes and host == incoming.headers.get("host", "").lower()


async def _read(receive: Receive) -> bytes:
    try:
        async with asyncio.timeout(_FORM_DEADLINE_S):
            return await _collect(receive)
    except TimeoutError:
        raise Refusal(
            "The form did not arrive in time.",
            reason="form_too_slow",
            status=HTTPStatus.REQUEST_TIMEOUT,
        ) from None


async def _collect(receive: Receive) -> bytes:
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal("Hung up.", reason="disconnected", status=HTTPStatus.BAD_REQUEST)
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > FORM_MAX_BYTES:
            raise Refusal(
                f"The form is larger than {FORM_MAX_BYTES} bytes.",
                reason="form_too_large",
                status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            )
    return bytes(body)


def _field(body: bytes) -> str | None:
    """The token in a form; of two, none."""
    try:
        fields = parse_qsl(body.decode("latin-1"), max_num_fields=_FORM_MAX_FIELDS)
    except ValueError:
        return None
    values = [value for name, value in fields if name == FIELD]
    return values[0] if len(values) == 1 else None


def _from_the_start(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read, then whatever comes after it."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return left.pop() if left else await receive()

    return replayed


def _refused(reason: str) -> Forbidden:
    return Forbidden("This page is out of date: load it again, and repeat.", reason=reason)
