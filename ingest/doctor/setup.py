"""What every check is given: the settings, a clock and a way to the database."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection

from ingest.settings import Settings
from ingest.store.engine import PipelineConnection, Role, create_engine


def _free_share(path: Path) -> tuple[int, float]:
    usage = shutil.disk_usage(path)
    return usage.free, usage.free / usage.total


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The set-up that is examined."""

    settings: Settings
    clock: Callable[[], datetime]
    """Returns the time, with a time zone."""
    free_space: Callable[[Path], tuple[int, float]] = _free_share
    """Returns the free bytes of a path's file system, and their share of all."""

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        """Yield a connection of its own to the database.

        Raises:
            SettingsError: there is no address.
            SQLAlchemyError: the database does not answer, or is unfit.
        """
        engine = create_engine(self.settings.database, role=Role.OPERATOR)
        try:
            with engine.connect() as connection:
                yield connection
        finally:
            engine.dispose()

    def driver(self) -> PipelineConnection:
        """Return a connection of the driver's, which the caller closes.

        Raises:
            psycopg.Error: the database does not answer, or is unfit.
        """
        return PipelineConnection.open(self.settings.database, Role.OPERATOR)
