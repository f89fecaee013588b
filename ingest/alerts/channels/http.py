"""Post to an address, bounded in time and in what is read of the answer."""

import asyncio
from collections.abc import Mapping

from ingest import outgoing, setting_values
from ingest.alerts.channels.base import TIMEOUT_S, ChannelFailed
from ingest.outgoing import NoAnswer, shown
from ingest.secret_references import Reference


def address(reference: Reference, environ: Mapping[str, str]) -> str:
    """Return the address that is kept at a place.

    Raises:
        SecretMissing: it is not there.
        ChannelFailed: it is no address of the web.
    """
    url = reference.read(environ)
    if not setting_values.is_web_address(url):
        raise ChannelFailed(f"{reference}: it is no web address.", reason="bad_url")
    return url


def post(
    url: str, body: bytes, headers: Mapping[str, str], *, secrets: tuple[str, ...] = ()
) -> str:
    """Post, and return what came back: the status and the beginning of the answer.

    Raises:
        ChannelFailed: there was no answer in time, or its status is not 2xx.
    """
    return _exchange("POST", url, body, headers, secrets)


def get(url: str) -> str:
    """Ask an address, likewise."""
    return _exchange("GET", url, None, {}, (url,))


def _exchange(
    method: str, url: str, body: bytes | None, headers: Mapping[str, str], secrets: tuple[str, ...]
) -> str:
    exchange = outgoing.request(method, url, body, headers, timeout_s=TIMEOUT_S)
    try:
        answer = asyncio.run(exchange)
    except NoAnswer as error:
        raise ChannelFailed(str(error), reason=error.reason) from None
    told = f"HTTP {answer.status}: {shown(answer.text, *secrets)}".rstrip(": ")
    if not answer.is_success:
        raise ChannelFailed(f"{told}.", reason="refused")
    return told
