"""Runs the bulk actions that were begun in the console, a batch at a time."""

from sqlalchemy import Engine
from sqlalchemy.exc import DataError, DBAPIError, ProgrammingError

from ingest import logs
from ingest.console.services.runner import Runner
from ingest.store.bulk import replay as bulk_actions

_QUERY_CANCELED = "57014"
_WHILE_ONE_WAITS_S = 0.5
_IDLE_S = 5.0
"""After so long an action is found that another process has begun or left. Of those that are begun
here the runner is told at once."""

log = logs.logger(__name__)


class BulkRunner(Runner):
    """The thread that runs bulk actions."""

    name = "bulk runner"
    pause_s = _IDLE_S

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine

    def run_batches(self) -> bool:
        """Run one batch of every bulk action, and return whether one has more to do now."""
        with self._engine.connect() as connection:
            running = bulk_actions.running_in_background(connection)
            stopped = bulk_actions.taking_back(connection)
        self.pause_s = _WHILE_ONE_WAITS_S if running or stopped else _IDLE_S
        has_more = [self._take_back(number) for number in stopped]
        has_more += [self._advance(number) for number in running]
        return any(has_more)

    def _take_back(self, number: int) -> bool:
        """Take back one batch, and return whether the next one can follow at once."""
        try:
            return bool(bulk_actions.take_back(self._engine, number))
        except DBAPIError as error:
            log.warning("taking_back_waits", number=number, reason=type(error).__name__)
            return False

    def _advance(self, number: int) -> bool:
        """Run one batch, and return whether the next one can follow at once."""
        try:
            progress = bulk_actions.advance(self._engine, number)
            return not progress.waits and not progress.has_ended
        except DBAPIError as error:
            problem = _permanent_problem(error)
            if problem is None:
                log.warning("bulk_action_waits", number=number, reason=type(error).__name__)
            else:
                self._fail(number, problem)
        except Exception as error:  # for example, another version began it
            log.error("bulk_action_failed", number=number, exc_info=error)
            self._fail(number, f"A bug in ingest: {type(error).__name__}; see the console's log.")
        return False

    def _fail(self, number: int, problem: str) -> None:
        log.warning("bulk_action_failed", number=number, problem=problem)
        with self._engine.begin() as connection:
            bulk_actions.fail(connection, number, problem)


def _permanent_problem(error: DBAPIError) -> str | None:
    """Return why another try would fail too; None: it may succeed.

    A database that is down comes back, and a lock is released.
    """
    if getattr(error.orig, "sqlstate", None) == _QUERY_CANCELED:
        return "Finding the next batch took too long. Add a filter, for example by time."
    if isinstance(error, ProgrammingError | DataError):
        return f"PostgreSQL refused: {type(error.orig).__name__}."
    return None
