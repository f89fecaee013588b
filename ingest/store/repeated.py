"""Transactions that are repeated where another transaction's lock is in their way."""

import time
from collections.abc import Callable
from typing import TypeVar

import psycopg
from sqlalchemy.exc import OperationalError

T = TypeVar("T")

_MOST_TRIES = 20
PAUSE_S = 0.25
"""Between two tries. Each has waited as long as its role does: two seconds and more."""
_PASSING = (psycopg.errors.DeadlockDetected, psycopg.errors.LockNotAvailable)


def is_passing(error: OperationalError) -> bool:
    """Return whether an error goes away by itself: another transaction held a lock."""
    return isinstance(error.orig, _PASSING)


def until_free(transact: Callable[[], T]) -> T:
    """Call `transact` until no lock is in its way; return what it returns. What it has committed
    before is not undone, so it must be safe to repeat.

    Raises:
        OperationalError: another error, or a lock was in the way twenty times.
    """
    for _ in range(_MOST_TRIES - 1):
        try:
            return transact()
        except OperationalError as error:
            if not is_passing(error):
                raise
        time.sleep(PAUSE_S)
    return transact()
