"""What every page and every operation of the API works with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Engine

from ingest.console.services.commands import Operations
from ingest.console.services.live_feed import Tail
from ingest.console.services.overview import Overviews
from ingest.settings import Settings
from ingest.sources.base import Source

LONGEST_QUERY = 2_000
"""Characters of a search."""
PAGE = 50
"""Events, or actions, of a page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """The parts of a running console."""

    settings: Settings
    version: str
    engine: Engine
    overviews: Overviews
    operations: Operations
    tail: Tail
    sources: Mapping[str, Source]
    """Every source by its slug."""
    clock: Callable[[], float]
    """Unix time in seconds."""

    @property
    def default_source(self) -> Source:
        """Return the source of test events."""
        return self.sources[self.settings.default_source]

    def now(self) -> datetime:
        """The time."""
        return datetime.fromtimestamp(self.clock(), UTC)
