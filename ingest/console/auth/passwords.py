"""Passwords: their hashes, and how they are checked."""

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

# A check takes 64 MiB and a fifth of a second on two cores, and anybody can request one.
_CONCURRENT = 2
_MAX_WAITING = 16
_SALT_BYTES, _DIGEST_BYTES = 16, 32


class Passwords:
    """Checks passwords in threads, a few at a time."""

    def __init__(self, users: Mapping[str, User], *, random: Callable[[int], bytes]) -> None:
        """`random` returns that many random bytes."""
        self._users = users
        self._nobodys_hash = _unmatchable(users, random)
        self._slots = asyncio.Semaphore(_CONCURRENT)
        self._pending = 0

    async def check(self, name: str, password: str) -> User | None:
        """Return the user whose password it is; None: it is wrong.

        An unknown name takes as long as a known one.

        Raises:
            AuthError: too many checks are waiting.
        """
        if self._pending >= _CONCURRENT + _MAX_WAITING:
            raise AuthError(
                "Too many people are logging in: try again.",
                reason="too_many_logins",
                status=HTTPStatus.SERVICE_UNAVAILABLE,
            )
        user = self._users.get(name)
        password_hash = user.password_hash if user else self._nobodys_hash
        self._pending += 1
        try:
            async with self._slots:
                is_right = await asyncio.to_thread(_matches, password_hash, password)
        finally:
            self._pending -= 1
        return user if is_right else None


def hash_password(password: str) -> str:
    """Return a password's argon2id hash, with the library's parameters and a random salt."""
    return PasswordHasher().hash(password)


def _matches(password_hash: str, password: str) -> bool:
    if len(password) > MAX_LENGTH:
        return False
    try:
        return PasswordHasher().verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False


def _unmatchable(users: Mapping[str, User], random: Callable[[int], bytes]) -> str:
    """Return a hash that no password has, and that is as slow to check as a user's."""
    for user in users.values():
        costs, _salt, _digest = user.password_hash.rsplit("$", 2)
        break
    else:
        hasher = PasswordHasher()
        costs = f"$argon2id$v=19$m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    return f"{costs}${_base64(random(_SALT_BYTES))}${_base64(random(_DIGEST_BYTES))}"


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode().rstrip("=")
