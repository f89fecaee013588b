"""Waking jobs of processors with an order that nobody has woken (`jobs.mend_order`)."""

from uuid import UUID

from sqlalchemy import Engine

from ingest.store.pipeline import jobs

SWEEP_LIMIT = 500
"""Keys that one sweep looks at; it takes about ten milliseconds."""
_FIRST = UUID(int=0)


class OrderMending:
    """Looks through the keys in turn, some each sweep."""

    def __init__(self, engine: Engine, *, limit: int = SWEEP_LIMIT) -> None:
        """Look through `engine`, at `limit` keys a sweep."""
        self._engine = engine
        self._limit = limit
        self._after = _FIRST

    def sweep(self) -> None:
        """Look at the next keys.

        Raises:
            SQLAlchemyError: PostgreSQL is away.
        """
        with self._engine.begin() as connection:
            last = jobs.mend_order(connection, after=self._after, limit=self._limit)
        self._after = last or _FIRST
