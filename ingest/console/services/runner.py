"""A thread that does work batch by batch, beside the pages.

What is to be done, and how far it has got, is in the database. A console that restarts therefore
continues, and several consoles share the work.
"""

import threading
from abc import ABC, abstractmethod

from sqlalchemy.exc import SQLAlchemyError

from ingest import logs

log = logs.logger(__name__)


class Runner(ABC):
    """Does what is to be done, until the console stops."""

    name: str
    """Of the thread, and in the log."""
    pause_s: float
    """Seconds between two looks for work."""

    def __init__(self) -> None:
        self.ends = threading.Event()
        """Set when the console stops."""
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    @abstractmethod
    def run_batches(self) -> bool:
        """Do one batch of everything that there is to do; return whether there is more to do now.

        Raises:
            SQLAlchemyError: PostgreSQL is away; it is tried again after the pause.
        """

    def start(self) -> None:
        """Start, and continue what is unfinished."""
        self._thread.start()

    def wake(self) -> None:
        """Look for new work at once."""
        self._woken.set()

    def stop(self, *, timeout_s: float) -> None:
        """Stop after the current batch, and wait for that at most `timeout_s` seconds."""
        self.ends.set()
        self._woken.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self.ends.is_set():
            try:
                has_more = self.run_batches()
            except SQLAlchemyError as error:
                log.warning("runner_waits", runner=self.name, reason=type(error).__name__)
                has_more = False
            if not has_more:
                self._woken.wait(self.pause_s)
                self._woken.clear()
