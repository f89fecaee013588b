"""Requests to servers of others: bounded in time and in what is read of the answer.

A redirection is not followed: it would take what is sent to an address that nobody configured.
Proxies that the environment names are not used. With `only_public`, every address is checked where
the connection to it is made, after the name was resolved: no later resolution can lead elsewhere.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from aiohttp.abc import AbstractCookieJar
from aiohttp.resolver import ThreadedResolver

from ingest.errors import IngestError
from ingest.public_addresses import is_public

_REFUSED = "the address is not of the internet"
_READ_BYTES = 1024
_BODY_S = 2.0
"""For the beginning of a body, once its status has come."""
_SHOWN = 200
_LEAST_CUT = 4
"""Characters of a secret that an answer may end with by chance, and one more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back, as far as it was read."""

    status: int
    headers: Mapping[str, str]
    """By their lower-case names."""
    text: str
    """The beginning of the body; empty, if none came. It may hold anything: see `shown`."""

    @property
    def is_success(self) -> bool:
        """Return whether the request was taken."""
        return 200 <= self.status < 300


class NoAnswer(IngestError):
    """A server did not answer. The sentence names no address, which may be a secret."""


class NotPublic(NoAnswer):
    """The name leads to an address that is not the internet's, and nothing was sent to it."""

    def __init__(self) -> None:
        super().__init__(
            "Its address is of a private network, and only those of the internet are allowed.",
            reason="not_public",
        )


async def request(
    method: str,
    url: str,
    body: bytes | None,
    headers: Mapping[str, str],
    *,
    timeout_s: float,
    only_public: bool = False,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """Send a request over a connection of its own.

    Args:
        method: `POST` or `GET`.
        url: of the form https://HOST/PATH, or http://.
        body: what is sent.
        headers: besides those of HTTP itself.
        timeout_s: for everything, from resolving the name to reading the answer; seconds.
        only_public: connect to addresses of the internet only.
        tls: which certificates are trusted; None: those that the system trusts.

    Raises:
        NotPublic: as it says.
        NoAnswer: there was no answer in time.
    """
    connector = aiohttp.TCPConnector(
        force_close=True,
        use_dns_cache=False,
        resolver=ThreadedResolver(),
        ssl=tls or True,
        socket_factory=_public_socket if only_public else None,
    )
    try:
        async with (
            aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
                auto_decompress=False,  # a small answer may be gigabytes
                cookie_jar=_no_cookies(),
            ) as client,
            client.request(
                method,
                url,
                data=body,
                headers={"accept-encoding": "identity"} | dict(headers),
                allow_redirects=False,
            ) as response,
        ):
            text = await _beginning(response)
            sent = {name.lower(): value for name, value in response.headers.items()}
            return Answer(status=response.status, headers=sent, text=text)
    except TimeoutError:
        raise NoAnswer(f"No answer within {timeout_s:g} s.", reason="timeout") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        if _was_refused(error):
            raise NotPublic from None
        raise NoAnswer(f"It cannot be reached ({_why(error)}).", reason="unreachable") from None


async def _beginning(response: aiohttp.ClientResponse) -> str:
    """Return the beginning of a body. The status says what the answer is, so a body that breaks off
    or does not come is an empty one."""
    try:
        async with asyncio.timeout(_BODY_S):
            read = await response.content.read(_READ_BYTES)
    except Exception:
        return ""
    return read.decode("utf-8", errors="replace")


def shown(text: str, *secrets: str) -> str:
    """Return a part of an answer from outside, on one line and without our secrets. What was read
    of the answer may end in the middle of one."""
    for secret in filter(None, secrets):
        text = text.replace(secret, "…")
        cut = next((n for n in range(len(secret) - 1, 0, -1) if text.endswith(secret[:n])), 0)
        if cut >= _LEAST_CUT:
            text = f"{text[:-cut]}…"
    line = " ".join(text.split())
    return "".join(character for character in line if character.isprintable())[:_SHOWN]


def _public_socket(found: aiohttp.AddrInfoType) -> socket.socket:
    """Return a socket for a connection to an address, which nothing resolves again.

    Raises:
        OSError: it is not of the internet. Of a name with several addresses, aiohttp tries the next
            after this kind of error only.
    """
    family, kind, protocol, _, address = found
    if not is_public(str(address[0])):
        raise OSError(_REFUSED)
    return socket.socket(family=family, type=kind, proto=protocol)


def _was_refused(error: Exception) -> bool:
    """Return whether `_public_socket` refused an address. aiohttp wraps its error, and makes one of
    those of several addresses, with the texts of all."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return isinstance(cause, OSError) and _REFUSED in str(cause)


def _no_cookies() -> AbstractCookieJar:
    return aiohttp.DummyCookieJar(loop=asyncio.get_running_loop())


def _why(error: Exception) -> str:
    """Return what kept a connection from being made, without the address in the error's text."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name does not resolve"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        verified = error.certificate_error
        told = getattr(verified, "verify_message", "")
        return f"its certificate is not valid: {told}" if told else "its certificate is not valid"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return "it does not speak TLS as it should"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return type(error).__name__
