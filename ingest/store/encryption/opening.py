"""Reading stored bodies, encrypted or not, with the keys of the process."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection

from ingest.encryption.keys import NO_KEYS, BodyKeys
from ingest.errors import BodyKeyMissing, BodyTampered
from ingest.store.engine import BODY_KEYS


def keys_of(connection: Connection) -> BodyKeys:
    """Return the keys of the process that a connection belongs to."""
    keys: BodyKeys = connection.get_execution_options().get(BODY_KEYS, NO_KEYS)
    return keys


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownBody:
    """A body as it is shown, or why it is not."""

    body: bytes | None
    """As it was received; None: it is not stored, or not readable."""
    unreadable: str | None
    """Why it cannot be decrypted, as a sentence."""


def to_show(
    connection: Connection, stored: bytes | None, *, delivery: UUID, key: str | None
) -> ShownBody:
    """Return the body of a delivery, for people: one that cannot be decrypted is no error.

    Args:
        connection: of the process that shows it.
        stored: as it is in the database; None: it is not there.
        delivery: the id of its row.
        key: the id of the key that it is encrypted with; None: it is in clear.
    """
    if stored is None:
        return ShownBody(body=None, unreadable=None)
    try:
        body = keys_of(connection).open(stored, delivery, key)
    except (BodyKeyMissing, BodyTampered) as error:
        return ShownBody(body=None, unreadable=str(error))
    return ShownBody(body=body, unreadable=None)
