"""Runs the searches and erasures that were ordered in the console, a batch at a time."""

import time
from collections.abc import Mapping
from datetime import timedelta

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ingest import logs
from ingest.console.services.runner import Runner
from ingest.erasure import orders
from ingest.erasure.run import Eraser
from ingest.errors import IngestError
from ingest.sources.base import Source
from ingest.store import causes
from ingest.store.erasure import records
from ingest.store.erasure.records import ERASING, SEARCHING, Erasure

_UNCONFIRMED_KEPT = timedelta(days=1)

log = logs.logger(__name__)


class ErasureRunner(Runner):
    """The thread that searches for persons and erases them. It rests for as long as each batch
    took, because pages are answered by the same process."""

    name = "erasure runner"
    pause_s = 5.0  # it is told at once of what is ordered here

    def __init__(self, engine: Engine, sources: Mapping[str, Source]) -> None:
        super().__init__()
        self._engine = engine
        self._sources = sources
        self._problem: str | None = None

    def run_batches(self) -> bool:
        """Do one batch of every search and erasure; return whether one has more to do now."""
        with self._engine.begin() as connection:
            records.cancel_unconfirmed(connection, age=_UNCONFIRMED_KEPT)
            numbers = records.in_background(connection)
        has_more = [self._advance(number) for number in numbers]
        return any(has_more)

    def _advance(self, number: int) -> bool:
        """Do one batch, and return whether the next one can follow at once."""
        began = time.monotonic()
        try:
            erasure = orders.advance(self._engine, self._eraser, number)
        except SQLAlchemyError as error:
            cause = causes.explain(error)
            self._wait(number, cause.reason, cause.sentence)
            return False
        except IngestError as error:  # for example, receivers have a newer key than this console
            self._wait(number, error.reason, str(error))
            return False
        except Exception as bug:  # its text may quote what was read
            kind = type(bug).__name__
            self._wait(number, "internal", f"A bug in ingest: {kind}.")
            return False
        self._problem = None
        self.ends.wait(time.monotonic() - began)
        return erasure.status in (SEARCHING, ERASING)

    def _eraser(self, erasure: Erasure) -> Eraser:
        return Eraser(sources=self._sources, source=erasure.source)

    def _wait(self, number: int, reason: str, problem: str) -> None:
        """Record why a batch waits; log it once."""
        if problem != self._problem:
            log.warning("erasure_waits", erasure=number, reason=reason, cause=problem)
        self._problem = problem
        with self._engine.begin() as connection:
            records.note_problem(connection, number, problem)
