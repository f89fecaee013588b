"""The names of erased events whose own names identify a person: keyed digests."""

from collections.abc import Callable

from sqlalchemy import Connection

from ingest.store.sql import statement

PREFIX = "erased:"
KEY_BYTES = 32
_KEY = "(SELECT key FROM ingest.erasure_keys WHERE id = 1)"


def digest(*texts: str) -> str:
    """Return SQL for the keyed digest of texts, which are SQL too; null while there is no key."""
    joined = " || E'\\n' || ".join(texts)
    return f"sha256({_KEY} || convert_to({joined}, 'UTF8'))"


def erased_name(source: str, event_id: str) -> str:
    """Return SQL for the id that an erased event goes by; null while there is no key, and then
    nothing is computed."""
    name = f"'{PREFIX}' || encode({digest(source, event_id)}, 'hex')"
    return f"CASE WHEN {_KEY} IS NOT NULL THEN {name} END"


_MAKE_KEY = statement(
    "INSERT INTO ingest.erasure_keys (id, key) VALUES (1, :key) ON CONFLICT (id) DO NOTHING"
)


def ensure_key(connection: Connection, random: Callable[[int], bytes]) -> None:
    """Make the key if there is none; `random` returns so many random bytes."""
    connection.execute(_MAKE_KEY, {"key": random(KEY_BYTES)})
