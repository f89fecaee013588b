"""The requests that were sent to the API with an Idempotency-Key, so that each acts once.

A row holds nothing that can be read without the key itself, which only its sender has: digests of
the key and of the request, and the answer encrypted with the key.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from ingest.store.sql import statement

KEPT = timedelta(hours=24)
"""A key may be used for another request after this time."""
MOST = 100_000
"""More of them are forgotten earlier, the oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """A request that was sent with the same key before."""

    request: bytes
    """A digest of it."""
    began_at: datetime
    answer: bytes | None
    """Encrypted; None: it runs, or nobody knows how it ended."""


# A row that is too old and was not removed yet is taken over.
_CLAIM = statement(
    """
    INSERT INTO ingest.keyed_requests AS known (key, request)
    VALUES (:key, :request)
    ON CONFLICT (key) DO UPDATE
    SET request = excluded.request, began_at = now(), answer = NULL
    WHERE known.began_at < now() - CAST(:kept AS interval)
    RETURNING key
    """
)
_EARLIER = statement("SELECT request, began_at, answer FROM ingest.keyed_requests WHERE key = :key")


def claim(connection: Connection, key: bytes, request: bytes) -> Earlier | None:
    """Claim a key for a request. Of several at once, one gets it.

    Return None: it is claimed, and the request is to be done now. Otherwise return the request that
    has the key.

    Args:
        connection: in a transaction of its own, so that the others see the claim at once.
        key: a digest of the key.
        request: a digest of the request.
    """
    values = {"key": key, "request": request, "kept": KEPT}
    while True:
        if connection.execute(_CLAIM, values).one_or_none() is not None:
            return None
        row = connection.execute(_EARLIER, {"key": key}).mappings().one_or_none()
        if row is not None:  # otherwise it was given back in between
            return Earlier(
                request=bytes(row["request"]),
                began_at=row["began_at"],
                answer=None if row["answer"] is None else bytes(row["answer"]),
            )


_ANSWER = statement(
    "UPDATE ingest.keyed_requests SET answer = :answer WHERE key = :key AND request = :request"
)
_GIVE_BACK = statement(
    "DELETE FROM ingest.keyed_requests WHERE key = :key AND request = :request AND answer IS NULL"
)


def keep_answer(connection: Connection, key: bytes, request: bytes, answer: bytes) -> None:
    """Keep the answer to a request, encrypted."""
    connection.execute(_ANSWER, {"key": key, "request": request, "answer": answer})


def give_back(connection: Connection, key: bytes, request: bytes) -> None:
    """Give back the key of a request that has changed nothing, so that it can be sent again."""
    connection.execute(_GIVE_BACK, {"key": key, "request": request})


_FORGET = statement(
    """
    DELETE FROM ingest.keyed_requests
    WHERE began_at < greatest(
        now() - CAST(:kept AS interval),
        (SELECT began_at FROM ingest.keyed_requests ORDER BY began_at DESC OFFSET :others LIMIT 1)
    )
    """
)


def forget(connection: Connection) -> None:
    """Remove the requests that are too old, or too many."""
    connection.execute(_FORGET, {"kept": KEPT, "others": MOST - 1})
