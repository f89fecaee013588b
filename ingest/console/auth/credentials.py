"""The people and programs that may use the console, as the settings name them."""

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
# The lengths are what argon2's tools write: a line that was cut off while copying is told here.
_ARGON2 = re.compile(
    r"\$argon2id\$v=19\$m=(\d{1,7}),t=\d{1,3},p=(\d{1,2})\$[A-Za-z0-9+/]{22,}\$[A-Za-z0-9+/]{43,}"
)
_ARGON2_MIN_KIB_PER_LANE = 8
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody who logs in."""

    name: str
    role: Role
    password_hash: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A program that sends a bearer token."""

    name: str
    role: Role
    digest: str = field(repr=False)
    """SHA-256 of the token, in hexadecimal."""


def parse_users(text: str | None) -> Mapping[str, User]:
    """The users of INGEST_CONSOLE_USERS by name; without the setting, nobody.

    Raises:
        SettingsError: an entry is not `name:role:argon2-hash`. It names no value.
    """
    users = {}
    for number, (name, role, secret) in enumerate(_entries(USERS, text), start=1):
        if not _is_argon2(secret):
            raise _bad(USERS, f"the hash of entry {number} is not a whole argon2id hash")
        users[name] = User(name=name, role=role, password_hash=secret)
    return users


def parse_tokens(text: str | None) -> tuple[Token, ...]:
    """The tokens of INGEST_CONSOLE_TOKENS; without the setting, none.

    Raises:
        SettingsError: an entry is not `name:role:sha256`. It names no value.
    """
    tokens = []
    for number, (name, role, secret) in enumerate(_entries(TOKENS, text), start=1):
        if not _SHA256.fullmatch(secret):
            raise _bad(TOKENS, f"the hash of entry {number} is not 64 hexadecimal digits")
        tokens.append(Token(name=name, role=role, digest=secret))
    return tuple(tokens)


def digest(token: str) -> str:
    """What is kept of a token. No salt, no slow hash: a token is 256 random bits."""
    return hashlib.sha256(token.encode()).hexdigest()


def find_token(tokens: Collection[Token], presented: str) -> Token | None:
    """The token that was presented. Every one is compared, each in constant time."""
    given = digest(presented)
    found = None
    for token in tokens:
        if hmac.compare_digest(token.digest, given):
            found = token
    return found


def _entries(variable: str, text: str | None) -> list[tuple[str, Role, str]]:
    """What the setting lists, each name once."""
    if text is None:
        return []
    parts = [part for part in re.split(r"[\s;]+", text) if part]
    if not parts:
        raise _bad(variable, "it is empty; unset it, or name somebody")
    entries = [_entry(variable, number, part) for number, part in enumerate(parts, start=1)]
    if len({name for name, _, _ in entries}) < len(entries):
        raise _bad(variable, "a name is there twice")
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
    """Whether argon2 can check a password against it."""
    match = _ARGON2.fullmatch(text)
    if match is None:
        return False
    memory_kib, lanes = int(match[1]), int(match[2])
    return lanes > 0 and memory_kib >= _ARGON2_MIN_KIB_PER_LANE * lanes and ",t=0," not in text


def _bad(variable: str, problem: str) -> SettingsError:
    return SettingsError(f"{variable}: {problem}.", reason="bad_setting")
