"""What sources share when they verify: one header of a form, and the secret that matches."""

import hmac
import re
from collections.abc import Callable, Iterable

from ingest.errors import InvalidSignature
from ingest.sources.base import Headers

MAX_UNVERIFIED_BYTES = 64 * 1024
"""The largest body that is parsed before it is verified: at most some 30 ms of the event loop."""

Key = tuple[str, bytes]
"""The id of a secret, and the secret as a key."""

SHA256_HEX = rb"[0-9a-fA-F]{64}"


def key_id(secret: str, slug: str) -> str:
    """Return a short name for a source's secret, to record which one matched.

    It has 32 bits, so it confirms no guess."""
    return hmac.digest(secret.encode(), f"{slug} key id".encode(), "sha256")[:4].hex()


def only_header(
    headers: Headers, name: bytes, form: re.Pattern[bytes], what: str
) -> re.Match[bytes]:
    """Return the match of a header's value with its form.

    Args:
        headers: of the request.
        name: the header's name, in lower case.
        form: what the whole value must match.
        what: what the header holds, in the sentence and in the reason of an error.

    Raises:
        InvalidSignature: the header is missing, repeated or of another form.
    """
    only: bytes | None = None
    for header, value in headers:  # a list of the values takes 0.4 us more, for each delivery
        if header == name:
            if only is not None:
                raise InvalidSignature(
                    f"The {what} header is given twice.", reason=f"{what}_repeated"
                )
            only = value
    if only is None:
        raise InvalidSignature(f"The {what} header is missing.", reason=f"{what}_missing")
    match = form.fullmatch(only)
    if match is None:
        raise InvalidSignature(f"The {what} header is malformed.", reason=f"{what}_malformed")
    return match


def matching_key(
    keys: Iterable[Key], signature: bytes, digests: Callable[[bytes], Iterable[bytes]]
) -> Key:
    """Return the key with which a digest is the signature.

    Every key is tried, so that the time taken does not tell which one matched.

    Args:
        keys: the live ones.
        signature: as bytes, decoded.
        digests: returns the digests that a key allows.

    Raises:
        InvalidSignature: there is none.
    """
    matched = None
    for key in keys:
        for digest in digests(key[1]):
            if hmac.compare_digest(signature, digest):
                matched = key
    if matched is None:
        raise InvalidSignature("The signature does not match.", reason="signature_mismatch")
    return matched
