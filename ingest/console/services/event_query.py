"""One page of events and their number, within the time that somebody waits for a page."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import Engine

from ingest.sources.base import Source
from ingest.store.pipeline import processors
from ingest.store.search import counts, events
from ingest.store.search.counts import Count, Kind
from ingest.store.search.events import Page
from ingest.store.search.filters import EventFilter, looked_back_to, narrow
from ingest.store.search.related import is_cut, leaves_unfinished
from ingest.store.search.titles import titled

BUDGET_S = 0.045
"""Seconds for the page and the count together. A statement that runs is not interrupted."""
_MIN_COUNT_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryResult:
    """A page, and the number of all events that match."""

    page: Page
    count: Count
    looked_back_to: datetime | None
    """How far back bodies were looked through for what is searched (ingest.store.search.related);
    None: all of them were, or none had to be."""
    is_cut: bool
    """Whether what is searched has more messages or orders than were followed: the newest."""
    leaves_unfinished: bool
    """Whether what is searched was not looked for in all events that were not worked on."""


def find(
    engine: Engine,
    selection: EventFilter,
    *,
    sources: Mapping[str, Source],
    limit: int,
    before: UUID | None = None,
    after: UUID | None = None,
    oldest_first: bool = False,
) -> QueryResult:
    """Return what matches and was found in time, with titles by the `sources`. Page and count say
    how far the search got."""
    began = time.perf_counter()
    with engine.connect() as connection:
        looked_back = looked_back_to(connection, selection)
        cut = any(is_cut(connection, kind, value) for kind, value in selection.about)
        left = bool(selection.about) and leaves_unfinished(connection)
        selection = narrow(connection, selection)
        page = events.page(
            connection,
            selection,
            limit=limit,
            before=before,
            after=after,
            oldest_first=oldest_first,
            budget_s=BUDGET_S / 2,
            types_of=_known_types(processors.types(connection)) if selection.processor else None,
        )
        left_s = BUDGET_S - (time.perf_counter() - began)
        count = counts.count(connection, selection, budget_s=max(left_s, _MIN_COUNT_S))
        page = replace(
            page,
            events=titled(connection, page.events, sources),
            named=titled(connection, page.named, sources),
        )
    if cut or left:
        count = replace(count, kind=Kind.AT_LEAST)
    return QueryResult(
        page=page, count=count, looked_back_to=looked_back, is_cut=cut, leaves_unfinished=left
    )


def _known_types(types_of: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Leave out processors without types, since those could have worked on any."""
    return {name: types for name, types in types_of.items() if types}
