"""The users and tokens of the settings."""

import hashlib
import hmac
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from ingest.console.auth.roles import Role
from ingest.errors import SettingsError

USERS = "INGEST_CONSOLE_USERS"
TOKENS = "INGEST_CONSOLE_TOKENS"

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
# The lengths that argon2's tools write. A line that was cut off while copying is refused.
_ARGON2 = re.compile(
    r"\$argon2id\$v=19\$m=(\d{1,7}),t=\d{1,3},p=(\d{1,2})\$[A-Za-z0-9+/]{22,}\$[A-Za-z0-9+/]{43,}"
)
_ARGON2_MIN_KIB_PER_LANE = 8
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person who logs in."""

    name: str
    role: Role
    password_hash: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A program's bearer token."""

    name: str
    role: Role
    digest: str = field(repr=False)
    """SHA-256 of the token, in hexadecimal."""


def parse_users(text: str | None) -> Mapping[str, User]:
    """Return the users of INGEST_CONSOLE_USERS by name.

    Raises:
        SettingsError: an entry is not `name:role:argon2-hash`. The message contains no value.
    """
    users = {}
    for number, (name, role, secret) in enumerate(_entries(USERS, text), start=1):
        if not _is_argon2(secret):
            raise _bad(USERS, f"the hash of entry {number} is not a whole argon2id hash")
        users[name] = User(name=name, role=role, password_hash=secret)
    return users


def parse_tokens(text: str | None) -> tuple[Token, ...]:
    """Return the tokens of INGEST_CONSOLE_TOKENS.

    Raises:
        SettingsError: an entry is not `name:role:sha256`. The message contains no value.
    """
    tokens = []
    for number, (name, role, secret) in enumerate(_entries(TOKENS, text), start=1):
        if not _SHA256.fullmatch(secret):
            raise _bad(TOKENS, f"the hash of entry {number} is not 64 hexadecimal digits")
        tokens.append(Token(name=name, role=role, digest=secret))
    return tuple(tokens)


def digest(token: str) -> str:
    """Return a token's hash. A token is 256 random bits, so it needs no salt and no slow hash."""
    return hashlib.sha256(token.encode()).hexdigest()


def find_token(tokens: Collection[Token], presented: str) -> Token | None:
    """Return the token that was presented. All tokens are compared, each in constant time."""
    presented_digest = digest(presented)
    match = None
    for token in tokens:
        if hmac.compare_digest(token.digest, presented_digest):
            match = token
    return match


def _entries(variable: str, text: str | None) -> list[tuple[str, Role, str]]:
    """Return the entries of a setting. Every name is unique."""
    if text is None:
        return []
    parts = [part for part in re.split(r"[\s;]+", text) if part]
    if not parts:
        raise _bad(variable, "it is empty; unset it or add an entry")
    entries = [_entry(variable, number, part) for number, part in enumerate(parts, start=1)]
    if len({name for name, _, _ in entries}) < len(entries):
        raise _bad(variable, "a name appears twice")
    return entries


def _entry(variable: str, number: int, text: str) -> tuple[str, Role, str]:
    name, _, rest = text.partition(":")
    role, _, secret = rest.partition(":")
    if not secret:
        raise _bad(variable, f"entry {number} is not name:role:hash")
    if not NAME.fullmatch(name):
        raise _bad(variable, f"the name of entry {number} has other than letters, digits, ._@-")
    if role not in list(Role):
        raise _bad(variable, f"the role of entry {number} is neither viewer nor operator")
    return name, Role(role), secret


def _is_argon2(text: str) -> bool:
    """Return whether argon2 can check a password against a hash."""
    match = _ARGON2.fullmatch(text)
    if match is None:
        return False
    memory_kib, lanes = int(match[1]), int(match[2])
    return lanes > 0 and memory_kib >= _ARGON2_MIN_KIB_PER_LANE * lanes and ",t=0," not in text


def _bad(variable: str, problem: str) -> SettingsError:
    return SettingsError(f"{variable}: {problem}.", reason="bad_setting")
