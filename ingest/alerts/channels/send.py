"""Send a message by a channel of any kind."""

from collections.abc import Mapping

from ingest.alerts.channels import by_apprise, mail, slack, webhook
from ingest.alerts.channels.base import Envelope
from ingest.alerts.configuration import Channel, Email, Slack, Webhook


def send(channel: Channel, envelope: Envelope, environ: Mapping[str, str]) -> str:
    """Send a message, and return what came back, for people.

    Raises:
        ChannelFailed: it was not taken.
        SecretMissing: a secret is not where the configuration says.
    """
    if isinstance(channel, Slack):
        return slack.send(channel, envelope, environ)
    if isinstance(channel, Email):
        return mail.send(channel, envelope, environ)
    if isinstance(channel, Webhook):
        return webhook.send(channel, envelope, environ)
    return by_apprise.send(channel, envelope, environ)
