"""Backends that count in the same rows, and those that wait for each other."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from sqlalchemy import Connection, Engine, text

from tests.support.rows import one
from tests.support.waiting import until

SLOTS = 16

on_servers_of_its_own = pytest.mark.not_on(
    "pgbouncer-transaction",
    reason="watches which server connection a client has, which differs by transaction",
)


def slot_of(connection: Connection) -> int:
    """In whose rows its backend counts."""
    with connection.begin():
        return int(connection.execute(text(f"SELECT pg_backend_pid() % {SLOTS}")).scalar_one())


@contextmanager
def two_backends(engine: Engine, *, of_one_slot: bool) -> Iterator[tuple[Connection, Connection]]:
    """Two connections whose backends count in the same rows, or in others."""
    with ExitStack() as opened:
        found: dict[int, Connection] = {}
        while True:
            connection = opened.enter_context(engine.connect())
            slot = slot_of(connection)
            first = found.get(slot) if of_one_slot else next(iter(found.values()), None)
            if first is not None and (of_one_slot or slot not in found):
                yield first, connection
                return
            found[slot] = connection


def until_waiting(engine: Engine, count: int) -> None:
    """Until that many backends wait for a lock."""
    until(lambda: _waiting(engine) == count, what=f"{count} wait for a lock")


def _waiting(engine: Engine) -> int:
    return int(
        one(
            engine,
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
    )
