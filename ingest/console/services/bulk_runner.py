"""Does the replays and discards that were begun in the console, a batch at a time.

How far each is stands in its row, so a console that is started again goes on, and two consoles
share the work."""

import threading

from sqlalchemy import Engine
from sqlalchemy.exc import DataError, DBAPIError, ProgrammingError, SQLAlchemyError

from ingest import logs
from ingest.store.bulk import replay

_PAUSE_S = 0.5
_CANCELLED = "57014"

log = logs.logger(__name__)


class Runner:
    """The thread that does it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._wanted = threading.Event()
        self._ends = False
        self._thread = threading.Thread(target=self._run, name="runner", daemon=True)

    def start(self) -> None:
        """Begin, with what was left unfinished."""
        self._thread.start()

    def wake(self) -> None:
        """There is something new to do."""
        self._wanted.set()

    def stop(self, *, timeout_s: float) -> None:
        """End after the batch that is being done."""
        self._ends = True
        self._wanted.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._ends:
            try:
                goes_on = self._round()
            except SQLAlchemyError as error:
                log.warning("runner_waits", reason=type(error).__name__)
                goes_on = False
            if not goes_on:
                self._wanted.wait(_PAUSE_S)
                self._wanted.clear()

    def _round(self) -> bool:
        """One batch of each; whether there is more to do."""
        with self._engine.connect() as connection:
            running = replay.running_in_background(connection)
        advanced = [self._advance(each) for each in running]
        return any(advanced)

    def _advance(self, operation: int) -> bool:
        try:
            progress = replay.advance(self._engine, operation)
            return not progress.waits and not progress.has_ended
        except DBAPIError as error:
            problem = _lasting_problem(error)
            if problem is None:
                log.warning("operation_waits", operation=operation, reason=type(error).__name__)
            else:
                self._fail(operation, problem)
        except Exception as error:  # of one that another version has begun, say
            log.error("operation_failed", operation=operation, exc_info=error)
            self._fail(operation, f"A bug of ours: {type(error).__name__}; see the console's log.")
        return False

    def _fail(self, operation: int, problem: str) -> None:
        log.warning("operation_failed", operation=operation, problem=problem)
        with self._engine.begin() as connection:
            replay.fail(connection, operation, problem)


def _lasting_problem(error: DBAPIError) -> str | None:
    """Why trying again would not help; None: it may. A database that is away comes back, and a lock
    is let go."""
    if getattr(error.orig, "sqlstate", None) == _CANCELLED:
        return "Finding the next batch took too long: narrow the selection, by time for example."
    if isinstance(error, ProgrammingError | DataError):
        return f"PostgreSQL refused: {type(error.orig).__name__}."
    return None
