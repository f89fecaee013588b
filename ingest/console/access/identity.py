"""Who asks, and what they may do."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Role(StrEnum):
    """A viewer looks; an operator also changes."""

    VIEWER = "viewer"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who asks."""

    name: str
    role: Role
    via: Literal["loopback", "session", "token"]
    """How we know: nobody else reaches this console, a login, or a bearer token."""
