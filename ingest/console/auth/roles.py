"""The roles of people and programs."""

from enum import StrEnum


class Role(StrEnum):
    """A viewer reads; an operator also changes."""

    VIEWER = "viewer"
    OPERATOR = "operator"
