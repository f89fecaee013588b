"""Whatever the library apprise speaks: https://github.com/caronc/apprise. It is an extra."""

import importlib
from collections.abc import Mapping
from typing import Any

from ingest.alerts import notices
from ingest.alerts.channels.base import ChannelFailed, Envelope
from ingest.alerts.configuration import Apprise

MISSING = "apprise is not installed: pip install 'webhook-ingest[apprise]'."


def send(channel: Apprise, envelope: Envelope, environ: Mapping[str, str]) -> str:
    """Send a message.

    Raises:
        ChannelFailed: it was not taken, or apprise is not installed.
        SecretMissing: the address is not there.
    """
    sender = prepare(channel, environ)
    title, _, body = notices.text(envelope.message).partition("\n")
    if not sender.notify(title=title, body=body.strip() or title):
        raise ChannelFailed("The service did not take it.", reason="refused")
    return "Accepted"


def prepare(channel: Apprise, environ: Mapping[str, str]) -> Any:
    """Return the library's sender for a channel.

    Raises:
        ChannelFailed: apprise is not installed, or does not know the address.
        SecretMissing: the address is not there.
    """
    url = channel.url_reference.read(environ)
    sender = load().Apprise()
    if not sender.add(url):
        raise ChannelFailed(
            f"{channel.url_reference}: apprise does not know this kind of address.",
            reason="bad_url",
        )
    return sender


def load() -> Any:
    """Return the library. Raises ChannelFailed if it is not installed."""
    try:
        return importlib.import_module("apprise")
    except ImportError:
        raise ChannelFailed(MISSING, reason="apprise_missing") from None
