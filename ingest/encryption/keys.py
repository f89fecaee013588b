"""The keys that stored bodies are encrypted with: AES-256-GCM, a random nonce in front.

A key goes by an id that follows from its bytes, as a sender's secret does. So other bytes are never
taken for the key that a body was encrypted with: they are a key of another id, and the right one is
missing.

The id of its delivery is authenticated with a body: an encrypted body that is moved to another row
cannot be read there. Nothing else of the row is, because the rest is in clear and not protected by
any key either.
"""

import base64
import binascii
import hmac
import os
from collections.abc import Callable, Sequence
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ingest import setting_values
from ingest.errors import BodyKeyMissing, BodyTampered

KEY_BYTES = 32
NONCE_BYTES = 12
_TEXT_LENGTH = 43
"""Characters of so many bytes in base64, at least."""
_ID_LABEL = b"ingest body key id"
_BOUND_LABEL = b"ingest body\0"
"""What is authenticated begins with this, so that it means nothing elsewhere."""

Random = Callable[[int], bytes]


class BodyKeys:
    """Encrypts bodies with the newest of some keys, and decrypts with any of them."""

    def __init__(self, keys: Sequence[bytes] = (), *, random: Random = os.urandom) -> None:
        """`keys` are newest first; without any, bodies stay as they are. `random` is as
        `os.urandom`: a nonce must never come twice."""
        self._ciphers = {key_id(key): AESGCM(key) for key in keys}
        self._random = random
        self.ids = tuple(self._ciphers)
        """The ids of the keys, newest first."""
        self.newest = self.ids[0] if self.ids else None
        """The id of the key that bodies are encrypted with; None: they are stored in clear."""

    def seal(self, body: bytes, delivery: UUID, key: str) -> bytes:
        """Return the body of a delivery, encrypted with the key of the id `key`.

        It becomes 28 bytes longer: the nonce before it, and a tag behind.

        Raises:
            BodyKeyMissing: this process has not been given the key.
        """
        cipher = self._ciphers.get(key)
        if cipher is None:
            raise BodyKeyMissing(key)
        nonce = self._random(NONCE_BYTES)
        return nonce + cipher.encrypt(nonce, body, _bound_to(delivery))

    def open(self, stored: bytes, delivery: UUID, key: str | None) -> bytes:
        """Return the body of a delivery as it was received.

        Args:
            stored: as it is in the database.
            delivery: the id of its row.
            key: the id of the key that it is encrypted with; None: it is in clear.

        Raises:
            BodyKeyMissing: this process has not been given the key.
            BodyTampered: it is not what was stored in this row.
        """
        if key is None:
            return stored
        cipher = self._ciphers.get(key)
        if cipher is None:
            raise BodyKeyMissing(key)
        try:
            return cipher.decrypt(stored[:NONCE_BYTES], stored[NONCE_BYTES:], _bound_to(delivery))
        except (InvalidTag, ValueError):  # a nonce that is too short is a ValueError
            raise BodyTampered(delivery) from None


NO_KEYS = BodyKeys()
"""Those of a process that encrypts nothing."""


def _bound_to(delivery: UUID) -> bytes:
    return _BOUND_LABEL + delivery.bytes


def key_id(key: bytes) -> str:
    """Return the id of a key. It has 32 bits, and the key cannot be guessed from it."""
    return hmac.digest(key, _ID_LABEL, "sha256")[:4].hex()


def make(random: Random) -> str:
    """Return a new key as text, for `INGEST_BODY_KEYS`."""
    return base64.b64encode(random(KEY_BYTES)).decode()


def parse(text: str) -> tuple[bytes, ...]:
    """Return the keys of a list, separated by commas or lines.

    Raises:
        ValueError: one of them is no key. The message says where it is and does not quote it.
    """
    keys = [
        _decoded(position, secret)
        for position, secret in enumerate(
            setting_values.parse_secrets(text, min_length=_TEXT_LENGTH), start=1
        )
    ]
    if not keys:
        raise ValueError("is empty: `ingest encryption key` makes a key")
    return tuple(dict.fromkeys(keys))


def _decoded(position: int, text: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(
            f"key {position} is not {KEY_BYTES} bytes in base64: `ingest encryption key` makes one"
        )
    return key
