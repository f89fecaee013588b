"""Sessions: signed cookies. Nothing is stored, so they outlive a restart.

The key comes from the users' password hashes: with any password changed, every session ends.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping

from itsdangerous import BadData, URLSafeSerializer

from ingest.console.access.credentials import User

LIFETIME_S = 12 * 3_600

_KEY_BYTES = 32
_SESSION_ID_BYTES = 16


def secret_of(users: Mapping[str, User], *, random: Callable[[int], bytes]) -> bytes:
    """What all keys are derived from. Where nobody logs in it is good until the restart."""
    if not users:
        return random(_KEY_BYTES)
    lines = sorted(f"{user.name}:{user.password_hash}" for user in users.values())
    return hashlib.sha256("\n".join(["ingest console", *lines]).encode()).digest()


def keyed_hash(secret: bytes, *parts: str) -> str:
    """An HMAC of the parts, in hexadecimal. The first says what it is for; none has a newline."""
    return hmac.new(secret, "\n".join(parts).encode(), hashlib.sha256).hexdigest()


class Sessions:
    """Makes and reads session cookies."""

    def __init__(
        self,
        users: Mapping[str, User],
        *,
        secret: bytes,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        """`clock` gives Unix time in seconds, `random` that many random bytes."""
        self._users = users
        self._secret = secret
        self._clock = clock
        self._random = random
        self._signed = URLSafeSerializer(
            secret,
            salt="session",
            signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
        )

    def begin(self, user: User) -> str:
        """The cookie of a new session."""
        return self._signed.dumps(
            {
                "name": user.name,
                "password": self._fragment(user),
                "began": int(self._clock()),
                "id": self._random(_SESSION_ID_BYTES).hex(),
            }
        )

    def find(self, cookie: str | None) -> User | None:
        """Whose session it is, if it goes on: the role is the one that the user has now."""
        if cookie is None:
            return None
        try:
            session = self._signed.loads(cookie)
        except BadData:
            return None
        if self._clock() - session["began"] >= LIFETIME_S:
            return None
        user = self._users.get(session["name"])
        if user is None or session["password"] != self._fragment(user):
            return None
        return user

    def _fragment(self, user: User) -> str:
        """Changes with the user's password and tells nothing of it."""
        return keyed_hash(self._secret, "password", user.name, user.password_hash)[:16]
