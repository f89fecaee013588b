"""Which encrypted bodies pass the tests of a search: they are decrypted here, and thrown away."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from ingest.errors import BodyKeyMissing, BodyTampered
from ingest.store.encryption.opening import keys_of
from ingest.store.search.body_conditions import BodyTest
from ingest.store.sql import statement

_AT_ONCE = 100
"""Bodies in memory, of which each may have the largest size."""


def passing(
    connection: Connection, tests: Sequence[BodyTest], bodies: str, parameters: Mapping[str, Any]
) -> dict[str, list[UUID]]:
    """Return the ids of the encrypted bodies that pass each test, by the name of the parameter that
    its SQL takes them from; empty if the process has no keys.

    A body that cannot be decrypted passes none. One that is encrypted between this statement and
    the next is missed by both.

    Args:
        connection: in whose transaction to read.
        tests: of bodies, or of other columns, which need no key.
        bodies: SQL that selects `id`, `body_key` and `body` of encrypted bodies.
        parameters: its values, and others.
    """
    keys = keys_of(connection)
    about_bodies = [test for test in tests if test.matches is not None]
    if not about_bodies or not keys.ids:
        return {}
    passed: dict[str, list[UUID]] = {test.opened: [] for test in about_bodies}
    rows = connection.execute(
        statement(bodies),
        parameters,
        execution_options={"stream_results": True, "max_row_buffer": _AT_ONCE},
    )
    for row in rows:
        try:
            body = keys.open(row.body, row.id, row.body_key)
        except (BodyKeyMissing, BodyTampered):
            continue
        for test in about_bodies:
            if test.passes(body):
                passed[test.opened].append(row.id)
    return passed
