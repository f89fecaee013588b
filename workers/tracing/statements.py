"""The statements that a processor runs, as text without values.

They are noted while it runs and made into spans afterwards: a time limit may interrupt a processor
at any bytecode, and what takes locks to send spans must not be interrupted.
"""

import functools
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from sqlalchemy import Engine, event

MOST = 100
"""Statements of one call that become spans; of the others only the number is told."""
TEXT_LIMIT = 2_000

# A value may have been written into the text instead of being bound.
_VALUES = re.compile(
    r"""
      [eE]'(?:[^'\\]|\\.|'')*'             # with escapes
    | (?:[bBxXnN]|[uU]&)?'(?:[^']|'')*'    # a string
    | \$(\w*)\$.*?\$\1\$                   # in dollars
    | --[^\n]* | /\*.*?\*/                 # a comment
    | (?<![\w$."%)])[0-9][\w.]*            # a number, which is not part of a name
    """,
    re.DOTALL | re.VERBOSE,
)
_OPERATION = re.compile(r"\s*\(*\s*([A-Za-z]+)")


class Statement(NamedTuple):
    """A statement that has ended."""

    text: str
    began_ns: int
    ended_ns: int
    error: str | None
    """The type of what it raised."""


class Noted:
    """The statements of one call."""

    def __init__(self) -> None:
        self.statements: list[Statement] = []
        self.left_out = 0

    def add(self, statement: Statement) -> None:
        """Note a statement."""
        if len(self.statements) < MOST:
            self.statements.append(statement)
        else:
            self.left_out += 1


_noted: ContextVar[Noted | None] = ContextVar("noted", default=None)


@contextmanager
def noting() -> Iterator[Noted]:
    """Note the statements that this thread runs inside the block, on engines that are watched."""
    noted = Noted()
    token = _noted.set(noted)
    try:
        yield noted
    finally:
        _noted.reset(token)


def watch(engine: Engine) -> None:
    """Note the statements of an engine from now on, where they are asked for."""

    @event.listens_for(engine, "before_cursor_execute")
    def begin(_connection: Any, _cursor: Any, _sql: str, _v: Any, context: Any, _m: bool) -> None:
        if context is not None and _noted.get() is not None:
            context._ingest_began_ns = time.time_ns()  # noqa: SLF001 - as SQLAlchemy's examples do

    @event.listens_for(engine, "after_cursor_execute")
    def end(_connection: Any, _cursor: Any, sql: str, _v: Any, context: Any, _m: bool) -> None:
        _note(sql, context, None)

    @event.listens_for(engine, "handle_error")
    def fail(context: Any) -> None:
        error = type(context.original_exception).__qualname__
        _note(context.statement or "", context.execution_context, error)


def _note(sql: str, context: Any, error: str | None) -> None:
    noted = _noted.get()
    began_ns = getattr(context, "_ingest_began_ns", None)
    if noted is not None and began_ns is not None:
        noted.add(Statement(sql, began_ns, time.time_ns(), error))


@functools.lru_cache(maxsize=1_000)
def without_values(sql: str) -> str:
    """Return a statement with `?` for each value in its text, cut to `TEXT_LIMIT` characters."""
    text = _VALUES.sub(lambda match: " " if match[0][:2] in ("--", "/*") else "?", sql)
    text, quote, _ = text.partition("'")  # of a string that does not end
    text = " ".join(text.split()) + ("?" if quote else "")
    return text if len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT - 1] + "…"


def operation(sql: str) -> str:
    """Return what a statement does, by its first word."""
    match = _OPERATION.match(sql)
    return match[1].upper() if match else "statement"
