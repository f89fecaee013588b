"""Post to an address, bounded in time and in what is read of the answer."""

import asyncio
from collections.abc import Mapping

import aiohttp

from ingest import setting_values
from ingest.alerts.channels.base import TIMEOUT_S, ChannelFailed, shown
from ingest.alerts.configuration import Reference

_READ_BYTES = 1024


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

    A redirection is not followed: it would take the message to an address that nobody configured.

    Raises:
        ChannelFailed: there was no answer in time, or its status is not 2xx.
    """
    return asyncio.run(_request("POST", url, body, headers, secrets))


def get(url: str) -> str:
    """Ask an address, likewise."""
    return asyncio.run(_request("GET", url, None, {}, (url,)))


async def _request(
    method: str, url: str, body: bytes | None, headers: Mapping[str, str], secrets: tuple[str, ...]
) -> str:
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as client,
            client.request(
                method, url, data=body, headers=headers, allow_redirects=False
            ) as response,
        ):
            text = (await response.content.read(_READ_BYTES)).decode("utf-8", errors="replace")
            status = response.status
    except TimeoutError:
        raise ChannelFailed(f"No answer within {TIMEOUT_S:g} s.", reason="timeout") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        # The text of an error may quote the address, which may be the secret.
        raise ChannelFailed(
            f"It cannot be reached ({type(error).__name__}).", reason="unreachable"
        ) from None
    answer = f"HTTP {status}: {shown(text, *secrets)}".rstrip(": ")
    if not 200 <= status < 300:
        raise ChannelFailed(f"{answer}.", reason="refused")
    return answer
