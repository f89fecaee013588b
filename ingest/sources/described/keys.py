"""The keys that secrets stand for: those of HMACs, and public ones of Ed25519."""

import base64
import binascii
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature as WrongSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ingest.sources.described.description import Verify
from ingest.sources.signatures import Key, key_id

SIGNATURE_BYTES = 64
"""The size of an Ed25519 signature."""

PublicKey = tuple[str, Ed25519PublicKey]


def name(secret: str) -> str:
    """Return the name of a secret."""
    return key_id(secret, "described")


def split(secrets: Sequence[str], verify: Verify) -> tuple[list[Key], list[PublicKey]]:
    """Return the keys of HMACs or tokens, and the public keys, each newest first.

    Raises:
        ValueError: a secret is not encoded as the description says.
    """
    secret_keys: list[Key] = []
    public_keys: list[PublicKey] = []
    for secret in secrets:
        if is_public(secret, verify):
            public_keys.append((name(secret), _public_key(secret, verify)))
        else:
            secret_keys.append((name(secret), _decoded(secret, verify, verify.key_prefix)))
    return secret_keys, public_keys


def is_public(secret: str, verify: Verify) -> bool:
    """Return whether a secret is a public key, which verifies and cannot sign."""
    prefix = verify.public_key_prefix
    return verify.scheme == "ed25519" or bool(prefix and secret.startswith(prefix))


def check(secret: str, verify: Verify) -> None:
    """Raise ValueError, with a clause about the secret, if it is no key."""
    split((secret,), verify)


def matching(keys: Sequence[PublicKey], signatures: Sequence[bytes], signed: bytes) -> str | None:
    """Return the name of the key that one of the signatures over `signed` belongs to."""
    for known_as, key in keys:
        for signature in signatures:
            try:
                key.verify(signature, signed)
            except WrongSignature:
                continue
            return known_as
    return None


def _public_key(secret: str, verify: Verify) -> Ed25519PublicKey:
    prefix = verify.key_prefix if verify.scheme == "ed25519" else verify.public_key_prefix
    try:
        return Ed25519PublicKey.from_public_bytes(_decoded(secret, verify, prefix))
    except ValueError:
        raise ValueError(f"is no Ed25519 public key in {verify.key}") from None


def _decoded(secret: str, verify: Verify, prefix: str) -> bytes:
    if verify.key == "text":
        return secret.encode()
    text = secret.removeprefix(prefix)
    try:
        if verify.key == "hex":
            return bytes.fromhex(text)
        standard = text.rstrip("=").translate(_FROM_URL_SAFE)
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (ValueError, binascii.Error):
        raise ValueError(f"is not encoded in {verify.key}") from None


_FROM_URL_SAFE = str.maketrans("-_", "+/")
