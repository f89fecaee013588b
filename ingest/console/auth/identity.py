"""Who asks, and what they may do."""

from dataclasses import dataclass
from typing import Literal

from starlette.authentication import AuthCredentials, BaseUser

from ingest.console.auth.roles import Role

_SCOPES = {Role.VIEWER: (Role.VIEWER,), Role.OPERATOR: (Role.VIEWER, Role.OPERATOR)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity(BaseUser):
    """Who asks: `request.user`."""

    name: str
    role: Role
    via: Literal["loopback", "session", "token"]
    """How they are known: nobody else reaches this console, a login, or a bearer token."""

    @property
    def is_authenticated(self) -> bool:
        """Return True: whoever is unknown is Starlette's UnauthenticatedUser."""
        return True

    @property
    def display_name(self) -> str:
        """Return the name."""
        return self.name

    @property
    def identity(self) -> str:
        """Return the name, which is unique."""
        return self.name

    @property
    def credentials(self) -> AuthCredentials:
        """Return what they may do: a role's scopes are its own and those of the lesser one."""
        return AuthCredentials(_SCOPES[self.role])
