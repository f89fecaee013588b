"""Counts failed attempts in their groups, in a thread with a connection of its own.

A batch takes tens of milliseconds, and dispatching is not to wait for it while everything fails.
"""

import threading
import time
from datetime import UTC, datetime

from sqlalchemy import Engine

from ingest import logs
from ingest.store import causes
from ingest.store.failures import folding, settling

_EVERY_S = 1.0
_TEND_EVERY_S = 5.0
"""How often is looked for groups that resolve themselves."""
_ADOPT_EVERY_S = 60.0
_PAUSES = 1.0
"""A pause is as long as the batch before: counting takes half of a connection's time at most."""

log = logs.logger(__name__)


class Grouping:
    """Counts every second, until the process stops."""

    def __init__(self, engine: Engine, *, stop: threading.Event) -> None:
        self._engine = engine
        self._stop = stop
        self._tend_at = self._adopt_at = 0.0
        self._problem: str | None = None
        self._thread = threading.Thread(target=self._run, name="grouping", daemon=True)

    def start(self) -> None:
        """Start to count."""
        self._thread.start()

    def run_once(self, *, clock: float, now: datetime) -> bool:
        """Count a batch, and look after the groups if it is time; return whether more waits.

        Args:
            clock: monotonic, in seconds.
            now: the time of what is changed.

        Raises:
            SQLAlchemyError: PostgreSQL is away or refuses.
        """
        with self._engine.begin() as connection:
            if not folding.take_turn(connection):
                return False
            if clock >= self._adopt_at:
                folding.adopt(connection)
                folding.forget_counts(connection, now=now)
                self._adopt_at = clock + _ADOPT_EVERY_S
            folded = folding.fold(connection, now=now)
            folding.unmute(connection)
            if clock >= self._tend_at:
                resolved = settling.settle(connection)
                self._tend_at = clock + _TEND_EVERY_S
                if resolved:
                    log.info("failures_resolved", failures=resolved)
        return folded.has_more

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            has_more = self._succeeds()
            took_s = time.monotonic() - began
            self._stop.wait(_PAUSES * took_s if has_more else max(_EVERY_S, _PAUSES * took_s))

    def _succeeds(self) -> bool:
        """Count, and return whether more waits. What fails is told once, and tried again."""
        try:
            has_more = self.run_once(clock=time.monotonic(), now=datetime.now(UTC))
        except Exception as error:  # the thread goes on
            cause = causes.explain(error)
            if cause.reason != self._problem:
                log.warning(
                    "grouping_waits",
                    reason=cause.reason,
                    cause=cause.sentence,
                    exc_info=None if cause.is_known else error,
                )
            self._problem = cause.reason
            return False
        self._problem = None
        return has_more
