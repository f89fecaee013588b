"""Sessions: Starlette's signed cookies, and what the database stores of them.

The signing key is random. It is stored in the database, so that all consoles share it and it
survives a restart. A session contains a keyed fragment of the password's hash, so that a changed
password ends it. Somebody who has only the database, or only the hashes, cannot forge a session.

A session that a provider vouched for holds what it said: nobody is asked again before it ends. So
it is shorter, and ends when the settings that give roles change.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Protocol

from sqlalchemy import Engine
from starlette.concurrency import run_in_threadpool
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from ingest.console.auth.credentials import User
from ingest.console.auth.errors import AuthError
from ingest.console.auth.identity import Identity
from ingest.console.auth.oidc.configuration import Configuration
from ingest.console.auth.oidc.members import Member
from ingest.console.auth.request_info import has_twice
from ingest.console.auth.roles import Role
from ingest.store import console_sessions as store

LIFETIME_S = 12 * 3_600

_KEY_BYTES = 32
_SESSION_ID_BYTES = 16


class SessionStore(Protocol):
    """What all consoles share of sessions. Its functions may block."""

    def signing_key(self) -> bytes:
        """Return the signing key, which never changes."""

    def end(self, session: str, expires_at: datetime) -> None:
        """End a session that would expire at `expires_at`."""

    def has_ended(self, session: str) -> bool:
        """Return whether somebody ended a session."""


class DatabaseSessions:
    """The sessions' key and endings, in the database."""

    def __init__(self, engine: Engine, *, random: Callable[[int], bytes]) -> None:
        """`random` returns that many random bytes."""
        self._engine = engine
        self._random = random

    def signing_key(self) -> bytes:
        """Return the signing key. The first console makes it."""
        with self._engine.begin() as connection:
            return store.signing_key(connection, new=self._random(_KEY_BYTES))

    def end(self, session: str, expires_at: datetime) -> None:
        """End a session."""
        with self._engine.begin() as connection:
            store.end(connection, session, expires_at=expires_at)

    def has_ended(self, session: str) -> bool:
        """Return whether somebody ended a session."""
        with self._engine.connect() as connection:
            return store.has_ended(connection, session)


class Sessions:
    """Begins, finds and ends sessions. A session is the JSON object that Starlette signs."""

    def __init__(
        self,
        users: Mapping[str, User],
        session_store: SessionStore,
        *,
        oidc: Configuration | None = None,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        """`oidc` is None if no provider vouches for anybody.

        `clock` returns Unix time in seconds, `random` that many random bytes.
        """
        self._users = users
        self._store = session_store
        self._oidc = oidc
        self._clock = clock
        self._random = random
        self._key: bytes | None = None

    async def key(self) -> bytes:
        """Return the signing key. Raises SQLAlchemyError if it cannot be read."""
        if self._key is None:
            self._key = await run_in_threadpool(self._store.signing_key)
        return self._key

    async def begin(self, user: User) -> dict[str, Any]:
        """Return a new session of a user."""
        return self._new() | {"name": user.name, "password": _fragment(await self.key(), user)}

    def begin_for(self, member: Member, oidc: Configuration) -> dict[str, Any]:
        """Return a new session of somebody whom the provider vouches for."""
        return self._new() | {
            "subject": f"{member.subject} at {oidc.issuer}",
            "name": member.name,
            "role": member.role,
            "oidc": oidc.fingerprint,
        }

    async def find(self, session: Mapping[str, Any]) -> Identity | None:
        """Return whose session it is; None: it has ended.

        Raises:
            SQLAlchemyError: the database does not answer whether it has ended.
        """
        is_of_provider = "subject" in session
        identity = self._of_provider(session) if is_of_provider else await self._of_user(session)
        if identity is None:
            return None
        has_ended = await run_in_threadpool(self._store.has_ended, session["id"])
        return None if has_ended else identity

    async def end(self, session: Mapping[str, Any]) -> None:
        """End a session, at once and in every console.

        Raises:
            SQLAlchemyError: the database did not store it, so that the session continues.
        """
        if "id" not in session:  # it only waits for a provider
            return
        expires_at = datetime.fromtimestamp(session["began"], UTC) + timedelta(seconds=LIFETIME_S)
        await run_in_threadpool(self._store.end, session["id"], expires_at)

    def _new(self) -> dict[str, Any]:
        return {"began": int(self._clock()), "id": self._random(_SESSION_ID_BYTES).hex()}

    async def _of_user(self, session: Mapping[str, Any]) -> Identity | None:
        """Return the user with the present role."""
        user = self._users.get(session.get("name", ""))
        if user is None or self._is_over(session, LIFETIME_S):
            return None
        if not hmac.compare_digest(session["password"], _fragment(await self.key(), user)):
            return None
        return Identity(name=user.name, role=user.role, via="password")

    def _of_provider(self, session: Mapping[str, Any]) -> Identity | None:
        """Return the member with the role of the login."""
        oidc = self._oidc
        if oidc is None or session["oidc"] != oidc.fingerprint:
            return None
        if self._is_over(session, oidc.session_s):
            return None
        return Identity(
            name=session["name"],
            role=Role(session["role"]),
            via="oidc",
            subject=session["subject"],
        )

    def _is_over(self, session: Mapping[str, Any], lifetime_s: float) -> bool:
        return bool(self._clock() - session["began"] >= lifetime_s)


class SignedSessions:
    """ASGI middleware: Starlette's, with a key that the first request reads."""

    def __init__(self, app: ASGIApp, sessions: Sessions, *, behind_tls: bool) -> None:
        """`behind_tls`: the cookie is sent over TLS only, and to this host only."""
        self._app = app
        self._sessions = sessions
        self._behind_tls = behind_tls
        # Browsers let no other host, and no page without TLS, set a cookie with this prefix.
        self._cookie = "__Host-ingest_session" if behind_tls else "ingest_session"
        self._signed: SessionMiddleware | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if has_twice(HTTPConnection(scope), self._cookie):
            raise AuthError(
                "The session's cookie is repeated: clear the cookies of this site.",
                reason="cookie_repeated",
                status=HTTPStatus.BAD_REQUEST,
            )
        if self._signed is None:
            self._signed = SessionMiddleware(
                self._app,
                (await self._sessions.key()).hex(),
                session_cookie=self._cookie,
                max_age=LIFETIME_S,
                https_only=self._behind_tls,
            )
        await self._signed(scope, receive, send)


def _fragment(key: bytes, user: User) -> str:
    """Return a value that changes with the user's password and reveals nothing of it."""
    message = f"password\n{user.name}\n{user.password_hash}".encode()
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:16]
