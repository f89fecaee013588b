"""Selections for statements that cannot read encrypted bodies: the events are found beforehand."""

import time
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

from sqlalchemy import Connection

from ingest.errors import TooManyEvents
from ingest.store.encryption.opening import keys_of
from ingest.store.search.filters import UNHANDLED, EventFilter, body_tests
from ingest.store.search.id_range import Span
from ingest.store.search.scan import walk

MOST = 10_000
_LONGEST_S = 20.0
_IDS = "SELECT id FROM hits"


def pinned(
    connection: Connection,
    selection: EventFilter,
    *,
    most: int = MOST,
    clock: Callable[[], float] = time.monotonic,
) -> EventFilter:
    """Return a selection of the same events whose bodies need not be read any more.

    Without keys, and without a condition on bodies, it stays as it is.

    Args:
        connection: in whose transaction to read.
        selection: of a replay or discard.
        most: how many events it may name.
        clock: monotonic, in seconds.

    Raises:
        TooManyEvents: there are more, or finding them takes too long.
    """
    if not keys_of(connection).ids or not _asks_bodies(selection):
        return selection
    began = clock()
    found: set[UUID] = set()
    for part_of_it in _walked(selection):
        for part in walk(connection, part_of_it, Span(), select=_IDS, wanted=most + 1):
            found.update(row["id"] for row in part.rows if row["id"] is not None)
            if len(found) > most or clock() - began > _LONGEST_S:
                raise TooManyEvents(
                    f"Bodies are encrypted: at most {most:,} events can be selected by what they"
                    f" hold, within {_LONGEST_S:g} s. Narrow it, for example by time.",
                    reason="too_many_events",
                )
    return replace(selection, among=tuple(sorted(found)) or (_NO_EVENT,))


_NO_EVENT = UUID(int=0)


def _asks_bodies(selection: EventFilter) -> bool:
    about_bodies = (test.matches is not None for test in body_tests(selection))
    return any(about_bodies) or bool(selection.about)


def _walked(selection: EventFilter) -> list[EventFilter]:
    """Return what to walk through: where no state is named, only few events are meant."""
    if not selection.means_what_failed:
        return [selection]
    return [replace(selection, state=state) for state in ("dead", UNHANDLED)]
