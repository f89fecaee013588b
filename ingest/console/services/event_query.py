"""A page of events and how many there are, within the time that somebody waits for a page."""

import time
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Engine

from ingest.store.pipeline import processors
from ingest.store.search import counts, events
from ingest.store.search.counts import Count
from ingest.store.search.events import Page
from ingest.store.search.filters import EventFilter, narrow

BUDGET_S = 0.08
"""For both together; a statement that has begun is not broken off."""
_LEAST_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A page, and the count of all that match."""

    page: Page
    count: Count


def find(
    engine: Engine,
    selection: EventFilter,
    *,
    limit: int,
    before: UUID | None = None,
    after: UUID | None = None,
) -> Found:
    """What matches, as far as the time goes; page and count say how far that was."""
    began = time.perf_counter()
    with engine.connect() as connection:
        selection = narrow(connection, selection)
        page = events.page(
            connection,
            selection,
            limit=limit,
            before=before,
            after=after,
            budget_s=BUDGET_S / 2,
            types_of=_types(processors.types(connection)) if selection.processor else None,
        )
        left = BUDGET_S - (time.perf_counter() - began)
        return Found(
            page=page,
            count=counts.count(connection, selection, budget_s=max(left, _LEAST_S)),
        )


def _types(found: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Of the processors that say so; one without types could have had any."""
    return {name: types for name, types in found.items() if types}
