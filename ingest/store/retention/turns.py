"""Who may remove, and when: one at a time, and never beside a replay.

All locks are those of a transaction, so they hold behind a pooler too.
"""

from sqlalchemy import Connection

from ingest.store.sql import statement

# A lock number of the pipeline's own, after those of the totals' slots and of parking.
LOCK = "1953460321, 17"
_TAKE = statement(f"SELECT pg_try_advisory_xact_lock({LOCK})")
_TAKE_ALONE = statement(f"SELECT pg_advisory_xact_lock({LOCK})")
_HOLD_OFF = statement(f"SELECT pg_advisory_xact_lock_shared({LOCK})")


def take(connection: Connection) -> bool:
    """Return whether this transaction alone removes events, and no replay is in a batch.

    The caller's next statements see everything that replays have committed.
    """
    return bool(connection.execute(_TAKE).scalar_one())


def hold_off_removal(connection: Connection) -> None:
    """Keep events from being removed until the transaction ends.

    A replay puts finished jobs and events back. It waits for a removal, which takes milliseconds.
    """
    connection.execute(_HOLD_OFF)


def hold_alone(connection: Connection) -> None:
    """Keep every replay from its next batch, and events from being removed, until the transaction
    ends. Waits for the batches that run, which take milliseconds."""
    connection.execute(_TAKE_ALONE)
