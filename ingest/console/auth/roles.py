"""What people and programs may do."""

from enum import StrEnum


class Role(StrEnum):
    """A viewer reads; an operator also changes."""

    VIEWER = "viewer"
    OPERATOR = "operator"
