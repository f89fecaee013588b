"""The switch: nothing of Sentry's library is imported before it is known to be wanted."""

from collections.abc import Sequence
from importlib.util import find_spec

from sqlalchemy import Engine

from ingest.errors import SettingsError
from ingest.settings import Settings
from ingest.store.pipeline.jobs import Failure

MISSING = (
    "INGEST_SENTRY_DSN: sentry-sdk is not installed: pip install 'webhook-ingest[sentry]', or unset"
    " it."
)


class Reports:
    """Tells nobody of dead letters."""

    def dead(self, _engine: Engine, _failures: Sequence[Failure]) -> None:
        """Tell of those of the failures, all of them recorded, after which a job is dead."""

    def close(self) -> None:
        """Send what waits, within a bounded time."""


def check(settings: Settings) -> None:
    """Check that what the settings want can be had, without starting it.

    Raises:
        SettingsError: Sentry's library is not installed, or the DSN is none.
    """
    if settings.sentry_dsn is None:
        return
    if find_spec("sentry_sdk") is None:
        raise SettingsError(MISSING, reason="sentry_missing")
    from ingest.sentry import client

    client.check(settings.sentry_dsn.get_secret_value())


def reports(settings: Settings) -> Reports:
    """Return what tells of dead letters; in each fork anew, since a thread may start.

    Raises:
        SettingsError: as `check` does.
    """
    check(settings)
    if settings.sentry_dsn is None:
        return Reports()
    from ingest.sentry.client import SentryReports

    return SentryReports(settings.sentry_dsn.get_secret_value())
