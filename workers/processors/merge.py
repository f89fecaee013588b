"""Merging events into rows so that only the set of events counts.

A row's columns fall into groups. Each event offers values for some groups, with a place in the
group's order (its time, then its id); per group the highest place wins, in a batch as in the table.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Table, TextClause
from sqlalchemy.dialects import postgresql

from ingest.store import arrays
from ingest.store.sql import statement
from workers.event import Event

Place = tuple[Any, ...]
LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)
"""The place of what is undated; some senders write it themselves, so the SQL spells it too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Columns that are set together."""

    columns: tuple[str, ...]
    place: str
    """SQL for a row's place in the group's order; `{row}` stands for the row."""


def place(moment: datetime | None, event: Event) -> Place:
    """The place of an event that is dated `moment`: undated ones come first, ties go by the id."""
    return (moment or LONG_AGO, event.event_id)


def sql_place(time: str, event_id: str) -> str:
    """The SQL of `place`, for a row that keeps both in columns."""
    return f"coalesce({{row}}.{time}, '{LONG_AGO}'), coalesce({{row}}.{event_id}, '') COLLATE \"C\""


LAST_EVENT = Group(
    columns=("last_event_at", "last_event_id"), place=sql_place("last_event_at", "last_event_id")
)


class Entities:
    """What a batch of events says of each entity, per group."""

    def __init__(self) -> None:
        self._offers: dict[Any, dict[Group, tuple[Place, Mapping[str, Any]]]] = {}

    def offer(
        self, entity: Hashable, group: Group, place: Place, values: Mapping[str, Any]
    ) -> None:
        """Set the columns of `group`, unless an event of a higher place has."""
        groups = self._offers.setdefault(entity, {})
        if group not in groups or groups[group][0] < place:
            groups[group] = (place, values)

    def touch(self, entity: Hashable, moment: datetime | None, event: Event) -> None:
        """Note the event as one that was applied to the entity."""
        dated = moment or event.occurred_at
        self.offer(
            entity,
            LAST_EVENT,
            place(dated, event),
            {"last_event_at": dated, "last_event_id": event.event_id},
        )

    def rows(self) -> list[dict[str, Any]]:
        """One row an entity, in the order of their keys: the order in which rows are locked."""
        return [
            {"key": entity}
            | {
                column: value
                for _, values in self._offers[entity].values()
                for column, value in values.items()
            }
            for entity in sorted(self._offers)
        ]


class Upsert:
    """The statement that merges rows into a table."""

    def __init__(
        self, table: Table, key: str, *groups: Group, settings: Mapping[str, str] | None = None
    ) -> None:
        """Merge `groups` by their order; `settings` are further columns, with the SQL that merges
        their value in `excluded` with the one in `present`."""
        grouped = {column: _setting(column, group) for group in groups for column in group.columns}
        self._key = key
        self._settings = grouped | dict(settings or {})
        self._statement = _upsert(table, key, self._settings)

    def __call__(self, db: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Merge `rows`; columns that a row does not have are null."""
        columns = {column: [row.get(column) for row in rows] for column in self._settings}
        columns[self._key] = [row["key"] for row in rows]
        db.execute(
            self._statement, {name: arrays.literal(values) for name, values in columns.items()}
        )


def _upsert(table: Table, key: str, settings: Mapping[str, str]) -> TextClause:
    columns = [key, *settings]
    arrays = ", ".join(f"CAST(:{column} AS {_type(table, column)}[])" for column in columns)
    assignments = ",\n        ".join(f"{column} = {sql}" for column, sql in settings.items())
    return statement(
        f"""
    INSERT INTO {table.fullname} AS present ({", ".join(columns)})
    SELECT * FROM unnest({arrays})
    ON CONFLICT ({key}) DO UPDATE SET
        {assignments}
    """
    )


def _setting(column: str, group: Group) -> str:
    newer = f"({group.place.format(row='excluded')}) > ({group.place.format(row='present')})"
    return f"CASE WHEN {newer} THEN excluded.{column} ELSE present.{column} END"


def _type(table: Table, column: str) -> str:
    return str(table.c[column].type.compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]
