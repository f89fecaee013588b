"""What a request has done that lasts, whatever fails later: it committed something, or sent it.

Commits are noted by themselves, those of reads too, if a read commits. What is sent is noted by who
sends it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, event


@dataclass(slots=True)
class Done:
    """What a request has done so far."""

    lasts: bool = False
    """Whether something of it lasts."""


_of_request: ContextVar[Done | None] = ContextVar("done", default=None)


@contextmanager
def watched() -> Iterator[Done]:
    """Yield what is done inside: in this thread, and in coroutines that it runs."""
    done = Done()
    token = _of_request.set(done)
    try:
        yield done
    finally:
        _of_request.reset(token)


def note() -> None:
    """Note that something was done that lasts. Where nobody watches, it does nothing."""
    done = _of_request.get()
    if done is not None:
        done.lasts = True


def note_commits(engine: Engine) -> None:
    """Note each commit of an engine from now on, also one that fails: it may have been made."""
    event.listen(engine, "commit", _note_commit)


def _note_commit(_connection: Connection) -> None:
    note()
