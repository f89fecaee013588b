"""Renewing the leases of running jobs, from a thread, while their processor works."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from sqlalchemy import Engine

from ingest import logs
from ingest.store.pipeline import jobs
from ingest.store.pipeline.jobs import Lease

log = logs.logger(__name__)


class Leases(Protocol):
    """Knows which claimed jobs this process holds, and keeps them leased."""

    def holding(self, held: Sequence[Lease], /) -> AbstractContextManager[None]:
        """Keep `held` leased inside the block, besides what is held already; from any thread."""

    @property
    def is_holding(self) -> bool:
        """Return whether jobs are held now."""


class LeaseKeeper:
    """Renews what is held every third of a lease, over a connection of its own.

    A lease that cannot be renewed ends, and the job goes to another worker; finishing it here then
    fails on the fence. Nothing needs to be told.
    """

    def __init__(self, engine: Engine, *, lease_s: float) -> None:
        self._engine = engine
        self._lease_s = lease_s
        self._held: dict[object, Sequence[Lease]] = {}
        self._changed = threading.Condition()
        self._pause = threading.Event()  # never set; time.sleep fails under libfaketime
        self._thread: threading.Thread | None = None

    @contextmanager
    def holding(self, held: Sequence[Lease]) -> Iterator[None]:
        """Keep `held` leased inside the block, besides what is held already; from any thread."""
        block = object()
        with self._changed:
            self._held[block] = held
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._changed:
                del self._held[block]

    @property
    def is_holding(self) -> bool:
        """Return whether jobs are held just now."""
        return bool(self._held)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._held)
            # What is held by then was claimed at most a third of a lease ago, or renewed.
            self._pause.wait(self._lease_s / 3)
            with self._changed:
                held = tuple(lease for block in self._held.values() for lease in block)
            if held:
                self._renew(held)

    def _renew(self, held: tuple[Lease, ...]) -> None:
        try:
            with self._engine.begin() as connection:
                jobs.renew(connection, held, lease_s=self._lease_s)
        except Exception as error:  # the next third tries again
            log.warning("leases_not_renewed", jobs=len(held), exc_info=error)
