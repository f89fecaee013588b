"""What a person does to an open circuit breaker: close it, or probe the target now.

To hold the jobs back by hand, the processor is paused.
"""

from collections.abc import Callable

from sqlalchemy import Connection, Engine

from ingest.console.auth.identity import Identity
from ingest.console.errors import NotPossible
from ingest.store.pipeline import breakers, processors
from ingest.store.reports import audit_log

CLOSE = "close breaker"
PROBE = "probe"


def close(engine: Engine, by: Identity, processor: str, reason: str | None) -> None:
    """Close a processor's breaker: all its jobs run.

    Raises:
        NotFound: no worker has registered the processor.
        NotPossible: it has no breaker, or that is not open.
    """

    def change(connection: Connection) -> bool:
        return breakers.close(connection, processor, by=by.name)

    _change(engine, by, processor, reason, CLOSE, change)


def probe(engine: Engine, by: Identity, processor: str, reason: str | None) -> None:
    """Probe the target of an open breaker now, whatever it asked for.

    Raises:
        NotFound: no worker has registered the processor.
        NotPossible: it has no breaker, that is not open, or the processor is paused.
    """

    def change(connection: Connection) -> bool:
        if processors.is_paused(connection, processor):
            raise NotPossible(f"{processor} is paused: resume it first.", reason="paused")
        return breakers.probe_now(connection, processor)

    _change(engine, by, processor, reason, PROBE, change)


def refuse_if_open(connection: Connection, processor: str) -> None:
    """Raise NotPossible if a processor's breaker is open: a job of it would only wait."""
    if processor in breakers.open_ones(connection):
        raise NotPossible(
            f"The target of {processor} is down, and its jobs wait: probe it now, or close its"
            " breaker.",
            reason="breaker_open",
        )


def _change(
    engine: Engine,
    by: Identity,
    processor: str,
    reason: str | None,
    action: str,
    change: Callable[[Connection], bool],
) -> None:
    with engine.begin() as connection:
        known = processors.one(connection, processor)
        if not change(connection):
            why = "its breaker is closed" if known.breaker else "it has no breaker"
            raise NotPossible(f"{processor} is not held back: {why}.", reason="not_open")
        audit_log.record(connection, by=by, action=action, target=processor, reason=reason)
