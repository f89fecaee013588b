"""A webhook of our own, signed as Standard Webhooks says."""

import json
import time
from collections.abc import Callable, Mapping

from ingest import standard_webhooks
from ingest.alerts import notices
from ingest.alerts.channels import http
from ingest.alerts.channels.base import ChannelFailed, Envelope
from ingest.alerts.configuration import Webhook


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
    signature = standard_webhooks.headers(
        f"msg_{envelope.id.hex}", body, [key], timestamp=int(clock())
    )
    headers = {"content-type": "application/json"} | signature
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
        return standard_webhooks.key(secret)
    except ValueError as error:
        raise ChannelFailed(f"{channel.secret_reference}: {error}.", reason="bad_secret") from None
