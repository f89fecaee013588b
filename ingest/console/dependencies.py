"""What every page and every operation of the API works with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Engine

from ingest.alerts.configuration import Configuration
from ingest.console.services.commands import Commands
from ingest.console.services.entity_view import Entities
from ingest.console.services.erasures import Erasures
from ingest.console.services.exports import Exports
from ingest.console.services.failure_changes import FailureChanges
from ingest.console.services.keyed_requests import KeyedRequests
from ingest.console.services.live_feed import LiveFeed
from ingest.console.services.overview import OverviewCache
from ingest.console.services.resending import Resending
from ingest.settings import Settings
from ingest.sources.base import Source

LONGEST_QUERY = 2_000
"""Characters of a search."""
PAGE_SIZE = 50
"""Events, or entries of the audit log, on a page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """The parts of a running console."""

    settings: Settings
    version: str
    engine: Engine
    overviews: OverviewCache
    commands: Commands
    entities: Entities
    erasures: Erasures
    exports: Exports
    failure_changes: FailureChanges
    keyed_requests: KeyedRequests
    live_feed: LiveFeed
    resending: Resending
    sources: Mapping[str, Source]
    """Every source by its slug."""
    destinations: Mapping[str, str]
    """The hosts of the destinations, by the names of their processors."""
    alerting: Configuration
    """The rules and channels of the alerts."""
    clock: Callable[[], float]
    """Unix time in seconds."""

    @property
    def default_source(self) -> Source:
        """Return the source of test events."""
        return self.sources[self.settings.default_source]

    def now(self) -> datetime:
        """Return the current time."""
        return datetime.fromtimestamp(self.clock(), UTC)
