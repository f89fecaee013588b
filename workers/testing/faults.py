"""What may happen to a processor in production, as parameters of its tests."""

import enum
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection

from workers.timeouts.signals import Interrupted


class Fault(enum.StrEnum):
    """What happens to each call in a test."""

    NONE = "none"
    CRASH = "crash"
    """The worker dies when the processor has returned, before the commit. The effects in PostgreSQL
    are gone, the others are not, and the event is processed again."""
    DUPLICATE = "duplicate"
    """The event is processed again after it has succeeded, as by `ingest replay --all-jobs`."""
    REORDER = "reorder"
    """Events that are run together are processed in the opposite order."""


under_faults = pytest.mark.parametrize("pipeline", list(Fault), ids=str, indirect=True)
"""Runs a test four times: undisturbed, and under each fault."""


def crashing(function: Callable[..., object]) -> Callable[[Any, Connection], None]:
    """Return a processor whose worker dies when it has returned."""

    def call(argument: Any, db: Connection) -> None:
        function(argument, db)
        raise Interrupted

    return call
