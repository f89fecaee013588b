"""Which names there are, for somebody who misspells one."""

from sqlalchemy import Connection

from ingest.store.search.distinct import TYPES
from ingest.store.sql import statement

_MOST = 1_000
"""A sender that puts an id into its types makes as many of them as events."""


def types(connection: Connection) -> list[str]:
    """Return the types of the events that are stored, up to a thousand of them; each costs one step
    through an index."""
    return list(connection.execute(_TYPES, {"most": _MOST}).scalars())


_TYPES = statement(
    f"""
    WITH RECURSIVE {TYPES}
    SELECT type FROM known WHERE type IS NOT NULL LIMIT :most
    """
)
