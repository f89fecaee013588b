"""The threads of a process that evaluates the rules and sends the messages.

Relays do both, each in a thread of its own, with connections of their own: nothing else waits for
them. The console does so too while no relay has evaluated for a while: somebody has to say that no
relay is alive. Who evaluates also keeps a sample of the backlog: it is one process at a time, and
there is one without a relay too.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from sqlalchemy.exc import SQLAlchemyError

from ingest import logs
from ingest.alerts import configuration as files
from ingest.alerts.configuration import Configuration
from ingest.alerts.delivery import Delivery
from ingest.alerts.evaluation import Evaluation
from ingest.alerts.facts import Surroundings
from ingest.errors import IngestError, SettingsError
from ingest.settings import Settings, reload_secrets
from ingest.sources import registry
from ingest.store import causes
from ingest.store.engine import Role, create_engine
from ingest.store.reports import behind

STANDS_IN_AFTER = 4
"""Intervals without an evaluation after which the console evaluates."""
_SHARE = 10
"""Evaluating takes at most a tenth of the time, however much waits."""
_EARLY = 0.9
"""A turn may come a little early: a process that waits for a whole interval would lose time."""
_LOOKS_S = 5.0
"""Messages that other processes wrote are looked for so often, and failed ones tried again."""
_STOP_S = 2.0

log = logs.logger(__name__)


class Watch:
    """Evaluates and sends until `stop` is called, also while PostgreSQL is away."""

    def __init__(
        self,
        settings: Settings,
        configuration: Configuration,
        *,
        by: str,
        stands_in: bool = False,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Make the threads of a process.

        Args:
            settings: of the process.
            configuration: rules and channels.
            by: the id of the process.
            stands_in: evaluate only while nobody else does.
            environ: where secrets are.
        """
        self._configuration = configuration
        self._every_s = configuration.interval_s * (STANDS_IN_AFTER if stands_in else _EARLY)
        self._environ = environ
        self._engine = create_engine(settings.database, role=Role.RELAY, pool_size=2)
        around = Surroundings(
            settings=settings,
            kind="console" if stands_in else "relay",
            configured_keys=ConfiguredKeys(settings, environ).read,
        )
        self._evaluation = Evaluation(self._engine, configuration, around, by=by, random=os.urandom)
        self._delivery = Delivery(self._engine, configuration, environ)
        self._ends = threading.Event()
        self._evaluated = threading.Event()
        self._evaluates = threading.Thread(target=self._evaluate, name="alerts", daemon=True)
        self._sends = threading.Thread(target=self._send, name="alert messages", daemon=True)

    def start(self) -> None:
        """Start the threads."""
        self._evaluates.start()
        if self._configuration.channels or self._configuration.heartbeat:
            self._sends.start()

    def stop(self) -> None:
        """End the threads. Wait 2 s at most: a message that is being sent may be sent again."""
        self._ends.set()
        self._evaluated.set()
        for thread in (self._evaluates, self._sends):
            if thread.is_alive():
                thread.join(_STOP_S)
        self._engine.dispose()

    def _evaluate(self) -> None:
        while not self._ends.is_set():
            began = time.monotonic()
            if _succeeds("alerts_wait", lambda: self._evaluation.run_if_due(every_s=self._every_s)):
                self._evaluated.set()
                _succeeds("backlog_not_sampled", self._sample)
            took_s = time.monotonic() - began
            self._ends.wait(max(self._configuration.interval_s, _SHARE * took_s))

    def _sample(self) -> None:
        with self._engine.begin() as connection:
            behind.record(connection)

    def _send(self) -> None:
        asked_at = float("-inf")
        heartbeat = self._configuration.heartbeat
        while not self._ends.is_set():
            has_evaluated = self._evaluated.wait(_LOOKS_S)
            self._evaluated.clear()
            while not self._ends.is_set() and _succeeds("alert_messages_wait", self._delivery.run):
                pass
            is_due = heartbeat and time.monotonic() - asked_at >= heartbeat.every_s
            if has_evaluated and is_due and not self._ends.is_set():
                asked_at = time.monotonic()
                self._ask_heartbeat()

    def _ask_heartbeat(self) -> None:
        from ingest.alerts.channels import http  # with its client 0.1 s of CPU, seldom needed

        assert self._configuration.heartbeat is not None
        try:
            http.get(self._configuration.heartbeat.url_reference.read(self._environ))
        except IngestError as error:
            log.warning("alert_heartbeat_failed", reason=error.reason, cause=str(error))


def _succeeds(waiting: str, act: Callable[[], object]) -> bool:
    """Return whether `act` returned something true. What fails is logged and tried again later."""
    try:
        return bool(act())
    except SQLAlchemyError as error:
        cause = causes.explain(error)
        log.warning(waiting, reason=cause.reason, cause=cause.sentence)
    except Exception as bug:  # the thread goes on: the next evaluation may succeed
        log.error(waiting, reason="internal", exc_info=bug)
    return False


class ConfiguredKeys:
    """The ids of the keys of each source that can be received, as their files hold them now."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        """Read the files that `settings` and `environ` name."""
        self._sources = settings.sources
        self._environ = environ

    def read(self) -> dict[str, Sequence[str]]:
        """Return the ids, newest first. A source that needs no secret has none."""
        try:
            sources = registry.configured(reload_secrets(self._sources, self._environ))
        except SettingsError:  # a file is being written, or is wrong: `ingest doctor` says so
            sources = registry.configured(self._sources)
        return {
            slug: source.key_ids
            for slug, source in sources.items()
            if source.secrets or not source.needs_secret()
        }


def load(settings: Settings) -> Configuration:
    """Return the configuration that the settings name, or the defaults.

    Raises:
        SettingsError: the file cannot be read or used.
    """
    return files.read(settings.alerts)
