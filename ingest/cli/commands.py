"""The changes that console and API make, for commands: the same functions, sentences and records.

Imported late: its imports take a tenth of a second that other commands do without.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from ingest import settings
from ingest.alerts import configuration
from ingest.alerts.configuration import Configuration
from ingest.cli.database import database
from ingest.console.services.bulk_runner import BulkRunner
from ingest.console.services.commands import Commands
from ingest.sources import registry


@contextmanager
def commands(alerting: Configuration | None = None) -> Iterator[Commands]:
    """Yield the changes; `alerting` is who is told of alerts, where that matters.

    A bulk action that they begin is run by whoever calls `advance`, or by a console.

    Raises:
        CommandError: the database is unreachable, not migrated, or did not answer in time.
    """
    loaded = settings.load()
    told = configuration.read(None) if alerting is None else alerting
    with database() as engine:
        sources = registry.configured(loaded.sources)
        yield Commands(engine, loaded, BulkRunner(engine), sources, told)
