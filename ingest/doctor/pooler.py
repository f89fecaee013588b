"""Whether a pooler stands before the database, and its mode."""

from collections.abc import Iterable
from contextlib import closing

from ingest.doctor.findings import Finding, note
from ingest.doctor.setup import Setup
from ingest.store.engine import PipelineConnection

DIRECT = note("connection_direct")
SESSION = note("pooler_session")
TRANSACTION = note("pooler_transaction")

_ROUNDS = 3
_PROCESS_ID = "SELECT pg_catalog.pg_backend_pid()"


def mode(setup: Setup) -> Iterable[Finding]:
    """Say whether connections reach the server itself, or a pooler and in which mode."""
    with closing(setup.driver()) as first:
        if first.is_direct:
            yield DIRECT.found("Connections reach the server itself, without a pooler.")
        elif _shares_servers(setup, first):
            yield TRANSACTION.found(
                "A pooler in transaction mode is before the server. Processors must not rely on"
                " their session (docs/database.md, Poolers)."
            )
        else:
            yield SESSION.found("A pooler in session mode is before the server.")


def _shares_servers(setup: Setup, first: PipelineConnection) -> bool:
    """Return whether an idle client gives its server connection away.

    In transaction mode, the pooler gives the server connection that was used last to whoever asks
    next. In session mode, a client keeps its own.
    """
    own = _server_process(first)
    with closing(setup.driver()) as second:
        return any(
            _server_process(second) == own or _server_process(first) != own for _ in range(_ROUNDS)
        )


def _server_process(connection: PipelineConnection) -> int:
    with connection.transaction():
        row = connection.execute(_PROCESS_ID).fetchone()
    return int(row[0]) if row else 0
