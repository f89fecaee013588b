"""Saved views: searches that somebody named, for all users. Each change is in the audit log."""

import re
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Row

from ingest.errors import AlreadyThere, InvalidName, NotFound
from ingest.store.reports import audit_log
from ingest.store.reports.audit_log import Author
from ingest.store.sql import statement

LONGEST_NAME = 100
"""Characters of a name."""
NAME = (
    r"^[^\s\x00-\x1f\x7f-\x9f]"
    r"(?:[^\x00-\x1f\x7f-\x9f\u2028\u2029]*[^\s\x00-\x1f\x7f-\x9f])?$"
)
"""What a name is, for Python, pydantic and JSON Schema: no control characters, no space around."""
MOST = 500
"""More views than a person can choose from are not listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A named search."""

    id: int
    name: str
    query: str
    """As it was typed: spans such as `2h` are before now, whenever that is."""
    oldest_first: bool
    made_by: str
    made_at: datetime


def every(connection: Connection) -> list[View]:
    """Return the views by their names, at most `MOST`."""
    return [View(**row) for row in connection.execute(_ALL).mappings()]


def named(connection: Connection, name: str) -> View:
    """Return the view of a name.

    Raises:
        NotFound: there is none.
    """
    row = connection.execute(_NAMED, {"name": name}).mappings().one_or_none()
    if row is None:
        raise NotFound(f"There is no view {name!r}.", reason="not_found")
    return View(**row)


def save(connection: Connection, *, by: Author, name: str, query: str, oldest_first: bool) -> View:
    """Keep a search under a name. The caller has parsed it.

    Raises:
        InvalidName: the name is empty, too long, or has control characters.
        AlreadyThere: the name is taken.
    """
    name = _checked(name)
    values = {"name": name, "query": query, "oldest_first": oldest_first, "made_by": by.name}
    row = connection.execute(_SAVE, values).mappings().one_or_none()
    if row is None:
        raise AlreadyThere(f"There is a view {name!r} already.", reason="name_taken")
    audit_log.record(connection, by=by, action="save view", target=f"{name}: {query}")
    return View(**row)


def rename(connection: Connection, number: int, name: str, *, by: Author) -> View:
    """Give a view another name.

    Raises:
        NotFound: there is no such view.
        AlreadyThere, InvalidName: as `save`.
    """
    name = _checked(name)
    before = _locked(connection, number)
    if connection.execute(_TAKEN, {"id": number, "name": name}).scalar() is not None:
        raise AlreadyThere(f"There is a view {name!r} already.", reason="name_taken")
    row = connection.execute(_RENAME, {"id": number, "name": name}).mappings().one()
    audit_log.record(connection, by=by, action="rename view", target=f"{before.name} to {name}")
    return View(**row)


def delete(connection: Connection, number: int, *, by: Author) -> None:
    """Remove a view.

    Raises:
        NotFound: there is no such view.
    """
    view = _locked(connection, number)
    connection.execute(_DELETE, {"id": number})
    audit_log.record(connection, by=by, action="delete view", target=f"{view.name}: {view.query}")


def _checked(name: str) -> str:
    name = name.strip()
    if len(name) > LONGEST_NAME or not re.fullmatch(NAME, name):
        raise InvalidName(
            f"A view's name is 1 to {LONGEST_NAME} characters on one line.", reason="bad_name"
        )
    return name


def _locked(connection: Connection, number: int) -> Row[tuple[str, str]]:
    row = connection.execute(_LOCKED, {"id": number}).one_or_none()
    if row is None:
        raise NotFound(f"There is no view {number}.", reason="not_found")
    return row


_COLUMNS = "id, name, query, oldest_first, made_by, made_at"
_ALL = statement(f"SELECT {_COLUMNS} FROM ingest.views ORDER BY lower(name), name LIMIT {MOST}")
_NAMED = statement(f"SELECT {_COLUMNS} FROM ingest.views WHERE name = :name")
_SAVE = statement(
    f"""
    INSERT INTO ingest.views (name, query, oldest_first, made_by)
    VALUES (:name, :query, :oldest_first, :made_by)
    ON CONFLICT (name) DO NOTHING RETURNING {_COLUMNS}
    """
)
_LOCKED = statement("SELECT name, query FROM ingest.views WHERE id = :id FOR UPDATE")
_TAKEN = statement("SELECT id FROM ingest.views WHERE name = :name AND id <> :id")
_RENAME = statement(f"UPDATE ingest.views SET name = :name WHERE id = :id RETURNING {_COLUMNS}")
_DELETE = statement("DELETE FROM ingest.views WHERE id = :id")
