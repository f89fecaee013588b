"""Authentication: who sent a request."""

from collections.abc import Collection

from starlette.authentication import AuthCredentials, AuthenticationBackend
from starlette.requests import HTTPConnection

from ingest.console.auth.credentials import Token, find_token
from ingest.console.auth.errors import Unauthenticated
from ingest.console.auth.identity import Identity
from ingest.console.auth.roles import Role
from ingest.console.auth.sessions import Sessions

_LOCAL = Identity(name="local", role=Role.OPERATOR, via="loopback")

Authenticated = tuple[AuthCredentials, Identity]


class LoopbackBackend(AuthenticationBackend):
    """Makes everybody an operator, for a console without credentials."""

    async def authenticate(self, conn: HTTPConnection) -> Authenticated:
        """Return the operator."""
        return _LOCAL.credentials, _LOCAL


class CredentialsBackend(AuthenticationBackend):
    """Identifies programs by their bearer tokens, and people by their sessions."""

    def __init__(self, tokens: Collection[Token], sessions: Sessions | None) -> None:
        """`sessions` is None if nobody logs in."""
        self._tokens = tokens
        self._sessions = sessions

    async def authenticate(self, conn: HTTPConnection) -> Authenticated | None:
        """Return the identity of the sender; None: it is unknown.

        Raises:
            Unauthenticated: the bearer token is wrong, even if there is a session.
            SQLAlchemyError: the database does not answer whether the session has ended.
        """
        identity = self._of_token(conn) or await self._of_session(conn)
        return None if identity is None else (identity.credentials, identity)

    def _of_token(self, conn: HTTPConnection) -> Identity | None:
        scheme, _, presented = conn.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        token = find_token(self._tokens, presented.strip())
        if token is None:
            raise Unauthenticated(
                "The bearer token is unknown.", reason="token_unknown", has_bearer=True
            )
        return Identity(name=token.name, role=token.role, via="token")

    async def _of_session(self, conn: HTTPConnection) -> Identity | None:
        if self._sessions is None or not conn.session:
            return None
        return await self._sessions.find(conn.session)
