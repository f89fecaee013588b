"""Slack's incoming webhooks: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks"""

import json
from collections.abc import Mapping

from ingest.alerts import notices
from ingest.alerts.channels import http
from ingest.alerts.channels.base import Envelope
from ingest.alerts.configuration import Slack
from ingest.alerts.notices import Message

_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def send(channel: Slack, envelope: Envelope, environ: Mapping[str, str]) -> str:
    """Send a message, and return what came back.

    Raises:
        ChannelFailed: Slack did not take it.
        SecretMissing: the address is not there.
    """
    url = http.address(channel.url_reference, environ)
    body = json.dumps({"text": as_mrkdwn(envelope.message)}).encode()
    return http.post(url, body, {"content-type": "application/json"}, secrets=(url,))


def as_mrkdwn(message: Message) -> str:
    """Return a message in Slack's markup. Three characters are escaped, as its documentation
    says."""
    first, _, rest = notices.text(message).translate(_ESCAPES).partition("\n")
    return f"*{first}*\n{rest}".rstrip()
