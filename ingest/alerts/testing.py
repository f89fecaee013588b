"""Test a channel: send a message by it now, past the line of messages."""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime

from ingest.alerts import notices
from ingest.alerts.channels import send
from ingest.alerts.channels.base import Envelope
from ingest.alerts.configuration import Configuration
from ingest.errors import NotFound


def send_test(
    configuration: Configuration, name: str, *, by: str, environ: Mapping[str, str]
) -> str:
    """Send a test message, and return what came back.

    Raises:
        NotFound: no channel has this name.
        ChannelFailed: the channel did not take it.
        SecretMissing: a secret is not where the configuration says.
    """
    channel = configuration.channels.get(name)
    if channel is None:
        known = ", ".join(configuration.channels) or "none: set INGEST_ALERTS"
        raise NotFound(f"There is no channel {name}; there is {known}.", reason="no_channel")
    envelope = Envelope(
        id=uuid.uuid4(), made_at=datetime.now(UTC), message=notices.compose_test(name, by)
    )
    return send.send(channel, envelope, environ)
