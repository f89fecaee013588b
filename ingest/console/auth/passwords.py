"""Passwords: how they are kept and checked."""

import asyncio
import base64
from collections.abc import Callable, Mapping
from http import HTTPStatus

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from ingest.console.auth.credentials import User
from ingest.console.auth.errors import AuthError

MIN_LENGTH = 12
MAX_LENGTH = 1_024

# A check takes 64 MiB and a fifth of a second on two cores, and anybody can ask for one.
_AT_ONCE = 2
_WAITING = 16
_SALT_BYTES, _DIGEST_BYTES = 16, 32


class Passwords:
    """Checks passwords, a few at once, in threads."""

    def __init__(self, users: Mapping[str, User], *, random: Callable[[int], bytes]) -> None:
        """`random` gives that many random bytes."""
        self._users = users
        self._nobodys_hash = _unmatchable(users, random)
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._asking = 0

    async def check(self, name: str, password: str) -> User | None:
        """The user whose password it is. A name that nobody has takes as long.

        Raises:
            AuthError: too many wait for an answer already.
        """
        if self._asking >= _AT_ONCE + _WAITING:
            raise AuthError(
                "Too many log in at this moment: try again.",
                reason="too_many_logins",
                status=HTTPStatus.SERVICE_UNAVAILABLE,
            )
        user = self._users.get(name)
        kept = user.password_hash if user else self._nobodys_hash
        self._asking += 1
        try:
            async with self._turn:
                right = await asyncio.to_thread(_matches, kept, password)
        finally:
            self._asking -= 1
        return user if right else None


def hash_password(password: str) -> str:
    """What is kept of a password: argon2id with the library's parameters and a random salt."""
    return PasswordHasher().hash(password)


def _matches(kept: str, password: str) -> bool:
    if len(password) > MAX_LENGTH:
        return False
    try:
        return PasswordHasher().verify(kept, password)
    except (VerificationError, InvalidHashError):
        return False


def _unmatchable(users: Mapping[str, User], random: Callable[[int], bytes]) -> str:
    """A hash that no password has, as costly to check as a user's."""
    for user in users.values():
        costs, _salt, _digest = user.password_hash.rsplit("$", 2)
        break
    else:
        hasher = PasswordHasher()
        costs = f"$argon2id$v=19$m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    return f"{costs}${_base64(random(_SALT_BYTES))}${_base64(random(_DIGEST_BYTES))}"


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode().rstrip("=")
