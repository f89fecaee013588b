"""Report every few seconds, from a thread of its own, that a process is alive."""

import os
import socket
import threading
from collections.abc import Callable

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from ingest import __version__, logs
from ingest.store import causes, privileges
from ingest.store.address import Database
from ingest.store.engine import Role, create_engine
from ingest.store.reports import heartbeats
from ingest.store.reports.heartbeats import ProcessIdentity

INTERVAL_S = 5.0
_LEAVES_S = 2.0
_REPORTS_PER_MINUTE = 12

log = logs.logger(__name__)

Report = Callable[[Connection], None]


def identity(
    kind: str,
    *,
    random: Callable[[int], bytes],
    queues: tuple[str, ...] | None = None,
    processors: tuple[str, ...] | None = None,
) -> ProcessIdentity:
    """Return the identity of this process, with an id that no other process ever has.

    A worker names the queues that it consumes and the processors that it has.
    """
    host, pid = socket.gethostname(), os.getpid()
    return ProcessIdentity(
        id=f"{host}:{pid}:{random(3).hex()}",
        kind=kind,
        host=host,
        pid=pid,
        version=__version__,
        queues=queues,
        processors=processors,
    )


class Heartbeat:
    """Reports until `leave` is called. An unreachable PostgreSQL delays only the reports."""

    def __init__(
        self,
        database: Database,
        process: ProcessIdentity,
        *,
        introduce: Report | None = None,
        report: Report | None = None,
        confirm: Callable[[], None] | None = None,
    ) -> None:
        """Also run `introduce` with the first report, and `report` with each; call `confirm` once
        the report is committed."""
        self._engine = create_engine(database, role=Role.OPERATOR)
        self._database = database
        self._process = process
        self._introduce = introduce
        self._report = report
        self._confirm = confirm
        self._lacks: list[str] = []
        self._asks_in = 0
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> None:
        """Start to report."""
        self._thread.start()

    def leave(self) -> None:
        """Report for the last time. Wait 2 s at most, even if PostgreSQL does not answer."""
        self._ends.set()
        self._thread.join(_LEAVES_S)

    def _run(self) -> None:
        while not self._ends.is_set():
            self._tell(leaves=False)
            self._ends.wait(INTERVAL_S)
        self._tell(leaves=True)
        self._engine.dispose()

    def _tell(self, *, leaves: bool) -> None:
        try:
            if not leaves:
                self._ask_for_privileges()
            with self._engine.begin() as connection:
                for tell in filter(None, (self._introduce, self._report)):
                    tell(connection)
                if leaves:
                    heartbeats.remove(connection, self._process)
                else:
                    heartbeats.upsert(connection, self._process, lacks=self._lacks)
            self._introduce = None
            if self._confirm is not None:
                self._confirm()
        except SQLAlchemyError as error:
            cause = causes.explain(error, self._database)
            log.debug("presence_not_reported", reason=cause.reason, cause=cause.sentence)
        except Exception as bug:  # the thread goes on
            log.error("presence_not_reported", reason="internal", exc_info=bug)

    def _ask_for_privileges(self) -> None:
        """Check every minute which privileges the role lacks, and log them."""
        if self._asks_in > 0:
            self._asks_in -= 1
            return
        with self._engine.connect() as connection:
            self._lacks = privileges.lacking(
                connection, self._process.kind, schema=self._database.schema
            )
        self._asks_in = _REPORTS_PER_MINUTE
        if self._lacks:
            log.error("privileges_missing", process=self._process.kind, role=self._lacks)
