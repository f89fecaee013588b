"""Sign what is sent as Standard Webhooks says.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hmac
from collections.abc import Sequence

PREFIX = "whsec_"
MIN_BYTES = 24
"""Of a secret, by the specification."""


def key(secret: str) -> bytes:
    """Return the bytes of a secret.

    Raises:
        ValueError: it is none. The clause does not quote it.
    """
    try:
        decoded = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    if len(decoded) < MIN_BYTES:
        raise ValueError(f"it must be {PREFIX} and {MIN_BYTES} bytes or more in base64")
    return decoded


def new_secret(random: bytes) -> str:
    """Return a secret of 32 random bytes."""
    return PREFIX + base64.b64encode(random).decode()


def headers(
    message_id: str, body: bytes, keys: Sequence[bytes], *, timestamp: int
) -> dict[str, str]:
    """Return the headers that sign a body: a signature for each key, so that a receiver may have
    any of them.

    Args:
        message_id: the same in every attempt; it holds no dot.
        body: as it is sent.
        keys: of the secrets, newest first.
        timestamp: Unix time in seconds.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    signatures = (
        base64.b64encode(hmac.digest(key_bytes, signed, "sha256")).decode() for key_bytes in keys
    )
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
