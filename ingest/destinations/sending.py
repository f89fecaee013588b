"""Send messages to a destination, by its rules."""

import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ingest import outgoing, setting_values, standard_webhooks
from ingest.destinations import message
from ingest.destinations.answer import Verdict, judge
from ingest.destinations.description import Destination, check_header, check_rules, check_url
from ingest.destinations.message import Message
from ingest.errors import SettingsError
from ingest.secret_references import Reference, SecretMissing

_MIN_LENGTH = 32
"""Characters of a secret: 24 bytes in base64."""
_HEADER_WORD, _ADDRESS_WORD = 6, 12
"""How long a word is that may be a token. A shorter word of an address may be any: "orders"."""
_BETWEEN_WORDS = re.compile(r"[\s/?&=;,:]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A destination's address and secrets as they are now."""

    url: str
    keys: tuple[bytes, ...]
    headers: Mapping[str, str]
    hidden: tuple[str, ...]
    """What no error may repeat."""
    tls: ssl.SSLContext | None


def target(destination: Destination, environ: Mapping[str, str]) -> Target:
    """Return where to send, and what to sign with. Variables and files are read anew.

    Raises:
        SettingsError: something is not there or of no use. The sentence names the place, and quotes
            nothing.
    """
    url = _checked(destination, destination.address, environ, partial(_check_url, destination))
    secrets = _secrets(destination, environ)
    places = {
        **{name: Reference(variable, None) for name, variable in destination.headers_env.items()},
        **{name: Reference(None, file) for name, file in destination.headers_file.items()},
    }
    hidden = {
        name: _checked(destination, place, environ, check_header) for name, place in places.items()
    }
    return Target(
        url=url,
        keys=tuple(standard_webhooks.key(secret) for secret in secrets),
        headers={**destination.headers, **hidden},
        hidden=_hidden(secrets, hidden.values(), None if destination.url else url),
        tls=_trusting(destination),
    )


async def send(
    destination: Destination,
    where: Target,
    what: Message,
    message_id: str,
    *,
    attempt: int,
    now: datetime,
) -> Verdict:
    """Send a message, and return what the answer means.

    Raises:
        NoAnswer: there was none.
    """
    headers = message.headers(
        what,
        message_id,
        where.keys,
        timestamp=int(now.timestamp()),
        attempt=attempt,
        more=where.headers,
    )
    answer = await outgoing.request(
        "POST",
        where.url,
        what.body,
        headers,
        timeout_s=destination.timeout_s,
        only_public=not destination.allow_private,
        tls=where.tls,
    )
    return judge(answer, *where.hidden, now=now)


def _hidden(secrets: Iterable[str], headers: Iterable[str], url: str | None) -> tuple[str, ...]:
    """Return what no error may repeat, the longest first: what holds another goes as a whole."""
    found = {*secrets, *headers}
    for header in headers:
        found.update(_words(header, _HEADER_WORD))
    if url is not None:
        found.update(_of_address(url))
    return tuple(sorted(found, key=lambda text: (-len(text), text)))


def _of_address(url: str) -> set[str]:
    """Return a secret address, and those of its parts that a server may name in an answer."""
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    named = {url, target, parts.path, *_words(target, _ADDRESS_WORD)} - {"", "/"}
    return named | {unquote(part) for part in named}


def _words(text: str, length: int) -> list[str]:
    return [word for word in _BETWEEN_WORDS.split(text) if len(word) >= length]


def _check_url(destination: Destination, url: str) -> None:
    check_url(url)
    check_rules(url, allow_http=destination.allow_http, allow_private=destination.allow_private)


def _check_secrets(text: str) -> None:
    for secret in setting_values.parse_secrets(text, min_length=_MIN_LENGTH):
        standard_webhooks.key(secret)


def _secrets(destination: Destination, environ: Mapping[str, str]) -> tuple[str, ...]:
    text = _checked(destination, destination.secrets, environ, _check_secrets)
    return setting_values.parse_secrets(text, min_length=_MIN_LENGTH)


def _checked(
    destination: Destination,
    place: Reference,
    environ: Mapping[str, str],
    check: Callable[[str], object],
) -> str:
    """Return the text at a place, if it passes a check that raises ValueError otherwise."""
    try:
        value = place.read(environ)
        check(value)
    except SecretMissing as error:
        raise _unusable(destination, str(error)) from None
    except ValueError as error:
        raise _unusable(destination, f"{place}: {error}.") from None
    return value


def _trusting(destination: Destination) -> ssl.SSLContext | None:
    file = destination.ca_file
    if file is None:
        return None
    try:
        return _context(file, file.read_bytes())
    except ssl.SSLError:
        raise _unusable(destination, f"{file}: it holds no certificates.") from None
    except OSError as error:
        raise _unusable(destination, f"{file}: {error.strerror}.") from None


def _unusable(destination: Destination, why: str) -> SettingsError:
    return SettingsError(f"The destination {destination.name}: {why}", reason="bad_destination")


@lru_cache(maxsize=100)
def _context(path: Path, _content: bytes) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=path)
