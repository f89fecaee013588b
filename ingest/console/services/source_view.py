"""The sources that are received, and the use of their keys, as pages and API show them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from ingest.sources.base import Source
from ingest.store.reports import key_use
from ingest.store.reports.key_use import KeyUse


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceView:
    """A source that has a key, or had one lately."""

    slug: str
    """Its name in addresses and searches."""
    title: str
    """Its name for people."""
    keys: tuple[KeyUse, ...]
    """Its secrets, and how much each is used."""


def read(
    connection: Connection, sources: Mapping[str, Source], *, now: datetime
) -> tuple[SourceView, ...]:
    """Return the sources with their keys."""
    keys = {slug: source.key_ids for slug, source in sources.items()}
    uses = key_use.read(connection, keys, now=now)
    views = (_view(source, uses) for source in sources.values())
    return tuple(view for view in views if view.keys)


def _view(source: Source, uses: list[KeyUse]) -> SourceView:
    own = tuple(use for use in uses if use.source == source.slug)
    return SourceView(slug=source.slug, title=source.title, keys=own)
