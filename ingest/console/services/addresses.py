"""The addresses of entities' pages, which name no person.

Addresses reach the logs of proxies and the history of browsers. So what an entity is called stands
there only if it is a plain number. A phone number, or any text that a sender uses as an id, is
encrypted with a key that the consoles share (AES-SIV, RFC 5297): the same entity always has the
same address, which can be kept and passed on, and nobody without the key can read or make one.
"""

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from sqlalchemy import Engine

from ingest.entities.entity import BadEntity, Entity, entity
from ingest.errors import NotFound
from ingest.store import console_sessions

_KEY_BYTES = 64
_PURPOSE = "addresses"
_SEALED = "~"
"""What an encrypted name begins with; no number does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityLink:
    """An entity with the address of its page."""

    kind: str
    title: str
    """Without digits of a person's number, if they are hidden."""
    name: str
    """What stands in the address after the kind, for the API too."""
    href: str


class Addresses:
    """Makes and reads addresses of entities."""

    def __init__(self, engine: Engine, *, random: Callable[[int], bytes]) -> None:
        """`random` returns that many random bytes, for the key that the first console makes."""
        self._engine = engine
        self._random = random
        self._cipher: AESSIV | None = None
        self._lock = Lock()

    def name(self, of: Entity) -> str:
        """Return what stands for an entity in an address, after its kind."""
        if not of.may_name_person:
            return of.value
        sealed = self._siv().encrypt(of.value.encode(), [of.kind.encode()])
        return _SEALED + base64.urlsafe_b64encode(sealed).decode().rstrip("=")

    def path(self, of: Entity) -> str:
        """Return the address of an entity's page."""
        return f"/entities/{of.kind}/{self.name(of)}"

    def entity(self, kind: str, name: str) -> Entity:
        """Return the entity of an address.

        Raises:
            NotFound: there is no such address, or its name would have to be encrypted.
        """
        value = self._opened(kind, name[1:]) if name.startswith(_SEALED) else name
        try:
            found = entity(kind, value)
        except BadEntity:
            raise _no_address() from None
        if found.may_name_person and not name.startswith(_SEALED):
            raise _no_address()
        return found

    def _opened(self, kind: str, text: str) -> str:
        try:
            sealed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            return self._siv().decrypt(sealed, [kind.encode()]).decode()
        except (binascii.Error, InvalidTag, ValueError):
            raise _no_address() from None

    def _siv(self) -> AESSIV:
        with self._lock:
            if self._cipher is None:
                with self._engine.begin() as connection:
                    key = console_sessions.shared_key(
                        connection, _PURPOSE, new=self._random(_KEY_BYTES)
                    )
                self._cipher = AESSIV(key)
            return self._cipher


def _no_address() -> NotFound:
    return NotFound(
        "There is no such page. Search for a phone number, or for an id that is no plain number, to"
        " come to its page.",
        reason="not_found",
    )
