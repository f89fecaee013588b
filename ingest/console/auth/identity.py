"""The identity of whoever sent a request."""

from dataclasses import dataclass
from typing import Literal

from starlette.authentication import AuthCredentials, BaseUser

from ingest.console.auth.roles import Role

Way = Literal["loopback", "password", "oidc", "token", "command line"]

_SCOPES = {Role.VIEWER: (Role.VIEWER,), Role.OPERATOR: (Role.VIEWER, Role.OPERATOR)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity(BaseUser):
    """A person or program: `request.user`."""

    name: str
    role: Role
    via: Way
    """How it came in: from this machine, by a login, with a bearer token, by a command."""
    subject: str | None = None
    """Who it is for ever, where the name may change: an OIDC provider's `sub`, and the provider."""

    @property
    def is_authenticated(self) -> bool:
        """Return True. Starlette represents the unknown as UnauthenticatedUser."""
        return True

    @property
    def display_name(self) -> str:
        """Return the name."""
        return self.name

    @property
    def identity(self) -> str:
        """Return what is unique: the name, unless it may change."""
        return self.subject or self.name

    @property
    def credentials(self) -> AuthCredentials:
        """Return the role's scopes. An operator also has a viewer's."""
        return AuthCredentials(_SCOPES[self.role])
