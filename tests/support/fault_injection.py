"""Processes that end, stall or lose their connection between two steps with the database.

The faults come in where psycopg waits for the server: below SQLAlchemy, below the guard and its
cursors, and whatever way a statement took.
"""

import enum
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import QueuePool, event
from sqlalchemy.exc import DBAPIError

from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from workers import guard

Driver = psycopg.Connection[Any]

BROKEN = (DBAPIError, psycopg.Error)
"""How a process sees that its connection broke."""
_ENDINGS = ("_commit_gen", "_rollback_gen")
"""How psycopg names what ends a transaction."""


class Fate(enum.Enum):
    """What befalls a process."""

    KILLED = "killed"
    CUT = "cut"
    """Its connection breaks under a step; the process goes on and sees the error."""
    DROPPED = "dropped"
    """Its connection breaks after a transaction, unnoticed until it is used again."""
    STALLED = "stalled"
    """It sleeps while others work, holding no lock, and then goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What befalls a process, and at which of its steps: before each statement, commit and
    rollback, and after the latter two. What needs a moment of its own waits for the next one."""

    fate: Fate
    step: int
    in_effects: bool = False
    """Only steps of the processors' transactions count, of which most lives have few."""


class Killed(BaseException):
    """Ends a process: no `Exception`, so that nothing in it goes on."""


class Mortal:
    """The connections of one process at a time, its steps counted."""

    def __init__(self, database_url: str) -> None:
        self.engine = create_engine(parse(database_url), role=Role.WORKER)
        self.effects = guard.create_engine(parse(database_url))
        self.is_dead = False
        self.was_cut = False
        self.has_struck = False
        """Whether the fault of the last life came to pass: it had as many steps."""
        self._fault: Fault | None = None
        self._meanwhile: Callable[[], None] = _nothing
        self._takes_along: Callable[[], None] = _nothing
        self._steps = 0
        self._drivers: list[Driver] = []
        for engine in (self.engine, self.effects):
            event.listen(engine, "do_connect", self._refuse_when_dead, insert=True)
            event.listen(engine, "connect", self._watch)
            # One that is never given back fails the test soon.
            assert isinstance(engine.pool, QueuePool)
            engine.pool._timeout = 1
            # What an engine asks the server once is no step of a life.
            engine.connect().close()

    @contextmanager
    def life(
        self, fault: Fault | None, meanwhile: Callable[[], None] | None = None
    ) -> Iterator["Mortal"]:
        """A process, from start to end; `meanwhile` is what others do while it stalls."""
        self.is_dead = self.was_cut = self.has_struck = False
        self._steps, self._fault = 0, fault
        self._meanwhile, self._takes_along = meanwhile or _nothing, _nothing
        try:
            yield self
        except BROKEN:  # a process that lives logs this, and goes on
            if not self.is_dead and not self.was_cut:
                raise
        except BaseException:
            if not self.is_dead:
                raise
        finally:
            if fault is not None:
                self.close()

    def on_death(self, takes_along: Callable[[], None]) -> None:
        """What else ends at the moment the process is killed, before anything can clean up."""
        self._takes_along = takes_along

    def close(self) -> None:
        """Give every connection back, including those that somebody forgot."""
        for driver in self._drivers:
            driver.close()
        self._drivers.clear()
        self.engine.dispose()
        self.effects.dispose()

    def _refuse_when_dead(self, *_: object) -> None:
        if self.is_dead:
            raise Killed

    def _watch(self, driver: Driver, _record: object) -> None:
        driver.wait = partial(self._wait, driver, driver.wait)  # type: ignore[method-assign]
        self._drivers.append(driver)

    def _wait(
        self,
        driver: Driver,
        really_wait: Callable[..., Any],
        asked: Any,
        *arguments: Any,
        **options: Any,
    ) -> Any:
        """In place of the driver's `wait`, which all that it asks the server goes through."""
        status = driver.info.transaction_status
        ends = asked.__name__ in _ENDINGS
        if _is_no_step(driver, asked, ends=ends):
            return really_wait(asked, *arguments, **options)
        self._before(driver, begins=status is TransactionStatus.IDLE)
        answer = really_wait(asked, *arguments, **options)
        if ends:
            self._after(driver)
        return answer

    def _before(self, driver: Driver, *, begins: bool) -> None:
        fate = self._next_fate(driver)
        if fate is Fate.KILLED:
            self._die()
        elif fate is Fate.CUT:
            self._cut(driver)
        elif fate is Fate.STALLED and begins:
            self._fault, self.has_struck = None, True
            self._meanwhile()

    def _after(self, driver: Driver) -> None:
        fate = self._next_fate(driver)
        if fate is Fate.KILLED:
            self._die()
        elif fate is Fate.CUT:
            self._cut(driver)
            raise psycopg.OperationalError("the connection broke before the answer came")
        elif fate is Fate.DROPPED:
            self._cut(driver)

    def _next_fate(self, driver: Driver) -> Fate | None:
        fault = self._fault
        if fault is None or (fault.in_effects and not isinstance(driver, guard.GuardedConnection)):
            return None
        at, self._steps = self._steps, self._steps + 1
        return fault.fate if at >= fault.step else None

    def _die(self) -> None:
        """The kernel takes everything; what still runs in Python finds nothing that works."""
        self.is_dead = self.has_struck = True
        for driver in self._drivers:
            _undo(driver)
            driver.pgconn.finish()
        self._takes_along()
        raise Killed

    def _cut(self, driver: Driver) -> None:
        self._fault, self.was_cut, self.has_struck = None, True, True
        _undo(driver)
        with socket.socket(fileno=os.dup(driver.pgconn.socket)) as wire:
            wire.shutdown(socket.SHUT_RDWR)


def _is_no_step(driver: Driver, asked: Any, *, ends: bool) -> bool:
    """A driver that was closed refuses by itself; the pool asks whether a connection lives,
    and rolls back where nothing began."""
    is_idle = driver.info.transaction_status is TransactionStatus.IDLE
    pings = driver.autocommit or asked.__name__ == "_set_autocommit_gen"
    return driver.closed or pings or (ends and is_idle)


def _undo(driver: Driver) -> None:
    """What the server does when it sees a connection end; here it has done so when we go on."""
    open_ = (TransactionStatus.INTRANS, TransactionStatus.INERROR)
    if driver.info.transaction_status in open_:
        driver.pgconn.exec_(b"ROLLBACK")


def _nothing() -> None: ...
