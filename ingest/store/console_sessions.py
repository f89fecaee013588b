"""The console's keys, and the sessions that ended before they expired.

Everything else of a session is in its cookie.
"""

from datetime import datetime

from sqlalchemy import Connection

from ingest.store.sql import statement

_MAKE_KEY = statement(
    "INSERT INTO ingest.console_keys (purpose, key) VALUES (:purpose, :key)"
    " ON CONFLICT (purpose) DO NOTHING"
)


_KEY = statement("SELECT key FROM ingest.console_keys WHERE purpose = :purpose")


def signing_key(connection: Connection, *, new: bytes) -> bytes:
    """Return the key that signs sessions; store `new` if there is none."""
    return shared_key(connection, "sessions", new=new)


def shared_key(connection: Connection, purpose: str, *, new: bytes) -> bytes:
    """Return the consoles' key for a purpose; store `new` if there is none.

    All consoles share the key that was stored first.
    """
    connection.execute(_MAKE_KEY, {"purpose": purpose, "key": new})
    key: bytes = connection.execute(_KEY, {"purpose": purpose}).scalar_one()
    return key


# An hour late, because the clocks of consoles and database differ.
_FORGET = statement(
    "DELETE FROM ingest.ended_sessions WHERE expires_at < now() - interval '1 hour'"
)


_END = statement(
    "INSERT INTO ingest.ended_sessions (id, expires_at) VALUES (:id, :expires_at)"
    " ON CONFLICT (id) DO NOTHING"
)


def end(connection: Connection, session: str, *, expires_at: datetime) -> None:
    """End a session, and delete the expired ones.

    Args:
        connection: in a transaction.
        session: its id.
        expires_at: when it would expire by itself.
    """
    connection.execute(_FORGET)
    connection.execute(_END, {"id": session, "expires_at": expires_at})


_HAS_ENDED = statement("SELECT EXISTS (SELECT FROM ingest.ended_sessions WHERE id = :id)")


def has_ended(connection: Connection, session: str) -> bool:
    """Return whether a session was ended early."""
    return bool(connection.execute(_HAS_ENDED, {"id": session}).scalar_one())
