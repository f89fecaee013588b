"""Renewing the leases of running jobs, from a thread, while their processor works."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Engine

from ingest import telemetry
from ingest.store import jobs
from ingest.store.jobs import Held

log = telemetry.logger(__name__)


class LeaseKeeper:
    """Renews what is held every third of a lease, over a connection of its own.

    A lease that cannot be renewed ends, and the job goes to another worker; finishing it here then
    fails on the fence. Nothing needs to be told.
    """

    def __init__(self, engine: Engine, *, lease_s: float) -> None:
        self._engine = engine
        self._lease_s = lease_s
        self._held: tuple[Held, ...] = ()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @contextmanager
    def holding(self, held: Sequence[Held]) -> Iterator[None]:
        """Keep `held` leased inside the block."""
        self._set(tuple(held))
        try:
            yield
        finally:
            self._set(())

    @property
    def is_holding(self) -> bool:
        """Whether jobs are held just now."""
        return bool(self._held)

    def _set(self, held: tuple[Held, ...]) -> None:
        with self._changed:
            self._held = held
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                # Another claim begins another third; idle, there is nothing to wait for but one.
                changed = self._changed.wait(self._lease_s / 3 if self._held else None)
                held = self._held
            if held and not changed:
                self._renew(held)

    def _renew(self, held: tuple[Held, ...]) -> None:
        try:
            with self._engine.begin() as connection:
                jobs.renew(connection, held, lease_s=self._lease_s)
        except Exception as error:  # the next third tries again
            log.warning("leases_not_renewed", jobs=len(held), exc_info=error)
