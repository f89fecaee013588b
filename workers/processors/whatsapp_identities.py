"""Making the contacts of their identities.

Each identity has at most one successor. The chain of successors ends in the identity that the
contact is named by; where it is a circle, in that which the newest change leads to.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection

from ingest.store import arrays
from ingest.store.sql import statement


class Link(NamedTuple):
    """The successor of an identity, and the version of what said so; None: it has none."""

    successor: str | None
    version: str | None


def take_turn(db: Connection) -> None:
    """Wait until no other transaction changes identities, and exclude others until this one ends.

    Two that each add a link of one chain would not see each other's.
    """
    db.execute(_TAKE_TURN)


def settle(db: Connection, touched: Sequence[str]) -> None:
    """Make the contacts anew whose identities were touched, directly or by a link."""
    rows = db.execute(_GROUPS, {"identities": arrays.literal(touched)}).all()
    ends = ends_of_chains({row.identity: Link(row.successor, row.version) for row in rows})
    old = {row.identity: row.contact_id for row in rows}
    moved = {identity: end for identity, end in ends.items() if end != old[identity]}
    if moved:
        db.execute(
            _MOVE,
            {
                "identities": arrays.literal(moved.keys()),
                "contact_ids": arrays.literal(moved.values()),
            },
        )
    contacts = set(ends.values())
    gone = {contact for contact in old.values() if contact is not None} - contacts
    if gone:
        db.execute(_REMOVE, {"contact_ids": arrays.literal(sorted(gone))})
    db.execute(_KEEP, {"contact_ids": arrays.literal(sorted(contacts))})


def ends_of_chains(links: Mapping[str, Link]) -> dict[str, str]:
    """Return for each identity the one that its chain of successors ends in."""
    ends: dict[str, str] = {}
    for identity in links:
        path: dict[str, Link] = {}
        current = identity
        while current not in ends and current not in path:
            path[current] = links[current]
            current = links[current].successor or current
        end = ends.get(current) or _end_of(current, path)
        ends.update(dict.fromkeys(path, end))
    return ends


def _end_of(last: str, path: Mapping[str, Link]) -> str:
    """Return the end of a path that leads from `last` to itself."""
    visited = list(path)
    circle = visited[visited.index(last) :]
    newest = max(circle, key=lambda identity: (path[identity].version or "", identity))
    return path[newest].successor or newest


_TAKE_TURN = statement(
    "SELECT pg_advisory_xact_lock(hashtextextended('ingest.whatsapp_identities', 0))"
)
_GROUPS = statement(
    """
    SELECT identity, contact_id, successor, versions->>'successor' AS version
    FROM ingest.whatsapp_identities
    WHERE identity = ANY(CAST(:identities AS text[])) OR contact_id = ANY(ARRAY(
        SELECT contact_id FROM ingest.whatsapp_identities
        WHERE identity = ANY(CAST(:identities AS text[]))
    ))
    """
)
_MOVE = statement(
    """
    UPDATE ingest.whatsapp_identities AS identities SET contact_id = moved.contact_id
    FROM unnest(CAST(:identities AS text[]), CAST(:contact_ids AS text[]))
        AS moved (identity, contact_id)
    WHERE identities.identity = moved.identity
    """
)
_REMOVE = statement(
    "DELETE FROM ingest.whatsapp_contacts WHERE contact_id = ANY(CAST(:contact_ids AS text[]))"
)


def _newest(column: str) -> str:
    """Return SQL for the value of a column that the newest event set, of a contact's identities."""
    order = f'versions->>\'{column}\' COLLATE "C" DESC NULLS LAST, identity COLLATE "C" DESC'
    return f"(array_agg({column} ORDER BY {order}))[1]"


_COLUMNS = ("phone", "name", "username", "parent_user_id")
_IS_PHONE = "contact_id ~ '^[0-9]+$'"
_SET = ", ".join(
    f"{column} = excluded.{column}"
    for column in ("user_id", *_COLUMNS, "last_event_at", "last_event_id")
)
_KEEP = statement(
    rf"""
    INSERT INTO ingest.whatsapp_contacts
        (contact_id, user_id, phone, {", ".join(_COLUMNS[1:])}, last_event_at, last_event_id)
    SELECT contact_id,
           CASE WHEN NOT {_IS_PHONE} THEN contact_id END,
           CASE WHEN {_IS_PHONE} THEN contact_id ELSE {_newest("phone")} END,
           {", ".join(map(_newest, _COLUMNS[1:]))},
           max(last_event_at),
           (array_agg(last_event_id ORDER BY coalesce(last_event_at, '-infinity') DESC,
                                             last_event_id COLLATE "C" DESC))[1]
    FROM ingest.whatsapp_identities
    WHERE contact_id = ANY(CAST(:contact_ids AS text[]))
    GROUP BY contact_id
    ORDER BY contact_id
    ON CONFLICT (contact_id) DO UPDATE SET {_SET}
    """
)
