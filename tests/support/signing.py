"""AwalChat's signature, written from its documentation alone."""

import hashlib
import hmac
import time

SECRET = "whsec_for_the_tests_0123456789"


def signed_headers(
    body: bytes, *, secret: str = SECRET, timestamp: int | None = None
) -> dict[str, str]:
    """The headers of a request that carries `body`, signed now unless a time is given."""
    stamp = str(int(time.time()) if timestamp is None else timestamp)
    signature = hmac.new(secret.encode(), stamp.encode() + b"." + body, hashlib.sha256)
    return {
        "Content-Type": "application/json",
        "X-Awal-Webhook-Timestamp": stamp,
        "X-Awal-Webhook-Signature": signature.hexdigest(),
    }
