"""The identity of whoever sent a request."""

from dataclasses import dataclass
from typing import Literal

from starlette.authentication import AuthCredentials, BaseUser

from ingest.console.auth.roles import Role

_SCOPES = {Role.VIEWER: (Role.VIEWER,), Role.OPERATOR: (Role.VIEWER, Role.OPERATOR)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity(BaseUser):
    """A person or program: `request.user`."""

    name: str
    role: Role
    via: Literal["loopback", "session", "token"]
    """How it was identified: by the local machine, a login, or a bearer token."""

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
        """Return the name, which is unique."""
        return self.name

    @property
    def credentials(self) -> AuthCredentials:
        """Return the role's scopes. An operator also has a viewer's."""
        return AuthCredentials(_SCOPES[self.role])
