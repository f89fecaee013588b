"""What keeps a channel from working, as far as that can be known without sending."""

from collections.abc import Callable, Iterator, Mapping
from urllib.parse import urlsplit

from ingest.alerts.channels import by_apprise, http, webhook
from ingest.alerts.channels.base import ChannelFailed
from ingest.alerts.configuration import (
    Channel,
    Configuration,
    Email,
    Slack,
    Webhook,
)
from ingest.secret_references import Reference, SecretMissing

_PORTS = {"http": 80, "https": 443}


def problems(configuration: Configuration, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each secret that is missing or of no use, and for a missing library."""
    for name, channel in configuration.channels.items():
        sentences = (_problem(part) for part in _parts(channel, environ))
        for sentence in dict.fromkeys(filter(None, sentences)):
            yield f"channels.{name}: {sentence}"


def _problem(part: Callable[[], object]) -> str | None:
    try:
        part()
    except (ChannelFailed, SecretMissing) as error:
        return str(error)
    return None


def _parts(channel: Channel, environ: Mapping[str, str]) -> list[Callable[[], object]]:
    """Return what is read before a channel sends."""
    if isinstance(channel, Email):
        return [lambda: channel.password_reference.read(environ)] if channel.username else []
    if isinstance(channel, Slack):
        return [lambda: http.address(channel.url_reference, environ)]
    if isinstance(channel, Webhook):
        return [
            lambda: http.address(channel.url_reference, environ),
            lambda: webhook.signing_key(channel, environ),
        ]
    return [by_apprise.load, lambda: by_apprise.prepare(channel, environ)]


def hosts(
    configuration: Configuration, environ: Mapping[str, str]
) -> Iterator[tuple[str, str, int]]:
    """Yield the part of the file, the host and the port of each address that is connected to.

    What apprise speaks to is not known; what is missing is told by `problems`.
    """
    for name, channel in configuration.channels.items():
        if isinstance(channel, Email):
            yield f"channels.{name}", channel.host, channel.server_port
        elif isinstance(channel, Slack | Webhook):
            yield from _web_host(f"channels.{name}", channel.url_reference, environ)
    if configuration.heartbeat is not None:
        yield from _web_host("heartbeat", configuration.heartbeat.url_reference, environ)


def _web_host(
    part: str, reference: Reference, environ: Mapping[str, str]
) -> Iterator[tuple[str, str, int]]:
    try:
        url = urlsplit(http.address(reference, environ))
    except (ChannelFailed, SecretMissing):
        return
    if url.hostname:
        yield part, url.hostname, url.port or _PORTS[url.scheme]
