"""A webhook of our own, signed as Standard Webhooks says.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hmac
import json
import time
from collections.abc import Callable, Mapping

from ingest.alerts import notices
from ingest.alerts.channels import http
from ingest.alerts.channels.base import ChannelFailed, Envelope
from ingest.alerts.configuration import Webhook

_PREFIX = "whsec_"
_MIN_BYTES = 24
"""Of a secret, by the specification."""


def send(
    channel: Webhook,
    envelope: Envelope,
    environ: Mapping[str, str],
    *,
    clock: Callable[[], float] = time.time,
) -> str:
    """Send a message, and return what came back. Its id is the same in every attempt.

    Raises:
        ChannelFailed: it was not taken.
        SecretMissing: the secret or the address is not there.
    """
    url, key = http.address(channel.url_reference, environ), signing_key(channel, environ)
    body = json.dumps(payload(envelope), ensure_ascii=False).encode()
    message_id, timestamp = f"msg_{envelope.id.hex}", str(int(clock()))
    signed = f"{message_id}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    headers = {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{signature}",
    }
    secret = channel.secret_reference.read(environ)
    return http.post(url, body, headers, secrets=(secret,))


def payload(envelope: Envelope) -> dict[str, object]:
    """Return the document that is sent."""
    return {
        "type": f"alert.{envelope.message.kind}",
        "timestamp": envelope.made_at.isoformat(),
        "data": notices.to_json(envelope.message),
    }


def signing_key(channel: Webhook, environ: Mapping[str, str]) -> bytes:
    """Return the bytes of a webhook's secret.

    Raises:
        SecretMissing: it is not there.
        ChannelFailed: it is none.
    """
    secret = channel.secret_reference.read(environ)
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) < _MIN_BYTES:
        raise ChannelFailed(
            f"{channel.secret_reference}: it must be {_PREFIX} and {_MIN_BYTES} bytes or more in"
            " base64.",
            reason="bad_secret",
        )
    return key
