"""Merging events into rows so that only the set of events counts.

Every event has a version, a text that sorts as the table's order of events does. It offers values
for the columns that it says something about; per column the value of the newest version stays, in
a batch as in the table. What an event does not say, it does not touch.

A row keeps the versions of its columns (`versions`) only where they do not follow from the columns
themselves: where one event said less than an older one, or had no time of its own. All other rows
are compared by their columns, at a third of the cost.
"""

import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Table, TextClause
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

from ingest.store import arrays
from ingest.store.sql import statement
from workers.control import Discard
from workers.event import Event

_KINDS_OF_EVENTS = 256
"""So many sets of columns that events offer are remembered."""
LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)
"""The time of what is undated; some senders write it themselves, so the SQL spells it too."""
_PERMANENT = ("22", "54")
"""SQLSTATE classes of what no retry mends: data that a type refuses, a limit of PostgreSQL's."""
_LAST_EVENT = ("last_event_at", "last_event_id")


Offer = tuple[str, dict[str, Any]]
"""An event's version, and the values that it offers by column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The columns of a row that say which event set other columns. `{row}` stands for the row."""

    time: str
    event_id: str
    rank: str = "0"
    """SQL for a digit: what counts more than the time."""
    tie: str = "''"
    """SQL for a text of the same length in all rows: what counts between the time and the id."""
    ties_by_id: bool = True
    """Whether of two events of one time the id decides; otherwise the one that is there stays."""

    @property
    def id_sql(self) -> str:
        """Return SQL for the last part of the order."""
        return f"{{row}}.{self.event_id}" if self.ties_by_id else "''"

    @property
    def version(self) -> str:
        """Return SQL for the version of the event; `Entities.offer` spells the same."""
        time = f"coalesce({{row}}.{self.time}, '{LONG_AGO}') AT TIME ZONE 'UTC'"
        spelled = f'to_char({time}, \'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"\')'
        return f"{self.rank} || {spelled} || {self.tie} || ' ' || {self.id_sql}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Columns that one event sets together, as a rule."""

    columns: tuple[str, ...]
    origins: tuple[Origin, ...]
    """Which event set them: the first of these that has an event id. None: `versions` says it."""


class Entities:
    """What a batch of events says of each entity."""

    def __init__(self) -> None:
        self._offers: dict[Any, list[Offer]] = {}

    def __iter__(self) -> Iterator[tuple[Any, list[Offer]]]:
        """Iterate over entities and their offers, in the order in which their rows are locked."""
        return iter(sorted(self._offers.items(), key=lambda offers: offers[0]))

    def offer(
        self,
        entity: Hashable,
        event: Event,
        values: dict[str, Any],
        *,
        moment: datetime | None,
        rank: int = 0,
        tie: str = "",
        ties_by_id: bool = True,
    ) -> None:
        """Set those of the columns in `values` that no newer event has set.

        Args:
            entity: the row's key.
            event: which says so; its envelope's time counts where `moment` is None.
            values: what it says, by column; the columns of the last event are added.
            moment: the time in its data.
            rank, tie, ties_by_id: as in `Origin`.
        """
        dated = moment or event.occurred_at
        time = (dated or LONG_AGO).isoformat(timespec="microseconds")
        version = f"{rank}{time}{tie} {event.event_id if ties_by_id else ''}"
        values["last_event_at"] = dated
        values["last_event_id"] = event.event_id
        self._offers.setdefault(entity, []).append((version, values))


class Upsert:
    """The statement that merges entities into a table."""

    def __init__(self, table: Table, key: str, *groups: Group, last_event: str) -> None:
        """Merge the columns of `groups`; `last_event` is SQL for a row's place in the order of the
        events that were the last."""
        self._key = key
        self._groups = groups
        self._follows = lru_cache(_KINDS_OF_EVENTS)(self._follows_uncached)
        last = {column: _newer(column, last_event) for column in _LAST_EVENT}
        columns = [(column, group) for group in groups for column in group.columns]
        by_version = {column: _newer_by_version(column, group) for column, group in columns} | last
        by_version["versions"] = _newest_versions(groups)
        self._columns = tuple(by_version)
        self._by_version = _upsert(table, key, by_version)
        self._by_columns: TextClause | None = None
        if all(group.origins for group in groups):
            by_columns = {column: _newer_by_columns(column, group) for column, group in columns}
            mixed = " OR ".join(_is_mixed(group) for group in groups)
            self._by_columns = _upsert(
                table, key, by_columns | last | {"versions": "NULL"}, f"{_PLAIN} AND NOT ({mixed})"
            )

    def __call__(self, db: Connection, entities: Entities) -> None:
        """Merge what a batch says of `entities`.

        Raises:
            Discard: PostgreSQL can never store it.
        """
        rows = [(key, *self._newest(offers)) for key, offers in entities]
        columns: dict[str, Sequence[Any]] = {
            column: [values.get(column) for _, values, _ in rows] for column in self._columns
        }
        columns["versions"] = [versions for _, _, versions in rows]
        columns[self._key] = [key for key, _, _ in rows]
        with discard_unstorable():
            self._merge(db, columns)

    def _merge(self, db: Connection, columns: Mapping[str, Sequence[Any]]) -> None:
        """Merge by the columns what can be; the other rows, which are locked by then, by their
        versions."""
        if self._by_columns is not None:
            merged = set(db.execute(self._by_columns, _literals(columns)).scalars())
            left = [n for n, key in enumerate(columns[self._key]) if key not in merged]
            columns = {name: [values[n] for n in left] for name, values in columns.items()}
        if columns[self._key]:
            db.execute(self._by_version, _literals(columns))

    def _newest(self, offers: Sequence[Offer]) -> tuple[dict[str, Any], str | None]:
        """Return a row's values, and the versions as JSON if they do not follow from the values."""
        if len(offers) == 1:  # as most entities of a batch have
            version, values = offers[0]
            if self._follows(tuple(values)):
                return values, None
            return values, self._spell(dict.fromkeys(values, version))
        newest: dict[str, Offer] = {}
        for offer in sorted(offers, key=lambda offer: offer[0], reverse=True):
            for column in offer[1]:
                newest.setdefault(column, offer)
        values = {column: offered[column] for column, (_, offered) in newest.items()}
        versions = {column: version for column, (version, _) in newest.items()}
        if all(_is_of_one_event(versions, group) for group in self._groups):
            return values, None
        return values, self._spell(versions)

    def _spell(self, versions: Mapping[str, str]) -> str:
        columns = (column for group in self._groups for column in group.columns)
        return json.dumps({column: versions[column] for column in columns if column in versions})

    def _follows_uncached(self, columns: tuple[str, ...]) -> bool:
        """Return whether the versions follow from the values where one event offers `columns`."""
        versions = dict.fromkeys(columns, "")
        return all(_is_of_one_event(versions, group) for group in self._groups)


@contextmanager
def discard_unstorable() -> Iterator[None]:
    """Raise `Discard` for what PostgreSQL can never store."""
    try:
        yield
    except DBAPIError as error:
        if (getattr(error.orig, "sqlstate", None) or "").startswith(_PERMANENT):
            raise Discard(f"PostgreSQL cannot store it: {type(error.orig).__name__}") from error
        raise


def _is_of_one_event(versions: Mapping[str, str], group: Group) -> bool:
    """Return whether a reader of the row would take the group's columns for those of the event
    which set them."""
    if not group.origins:
        return False
    origin = next((origin for origin in group.origins if origin.event_id in versions), None)
    if origin is None:
        return not any(column in versions for column in group.columns)
    version = versions[origin.event_id]
    return versions.get(origin.time) == version and all(
        versions.get(column, version) == version for column in group.columns
    )


_PLAIN = "(present.versions IS NULL AND excluded.versions IS NULL)"


def _literals(columns: Mapping[str, Sequence[Any]]) -> dict[str, str]:
    return {name: arrays.literal(values) for name, values in columns.items()}


def _newer_by_version(column: str, group: Group) -> str:
    """Return SQL for the newer value of a column, whatever the rows are."""
    return _newer(column, f'{_kept_version(column, group)} COLLATE "C"')


def _newer_by_columns(column: str, group: Group) -> str:
    """Return SQL for the newer value of a column, where the versions follow from the columns."""
    return f"""CASE WHEN excluded.{column} IS NULL THEN present.{column}
             WHEN present.{column} IS NULL OR {_is_newer(_place(group))} THEN excluded.{column}
             ELSE present.{column} END"""


def _newest_versions(groups: Sequence[Group]) -> str:
    """Return SQL for the newest version of each column."""
    versions = _all_versions(groups)
    rows = [
        f"SELECT * FROM jsonb_each_text({versions.format(row=row)})"
        for row in ("present", "excluded")
    ]
    return f"""(
            SELECT coalesce(jsonb_object_agg(field, version), '{{}}') FROM (
                SELECT DISTINCT ON (field) field, version
                FROM ({" UNION ALL ".join(rows)}) AS both_ (field, version)
                ORDER BY field, version COLLATE "C" DESC
            ) AS newest
        )"""


def _is_mixed(group: Group) -> str:
    """Return SQL for whether the merged columns come from several events: the older one has a value
    that the newer one lacks, or the row would name another origin."""

    def lacks(newer: str, older: str) -> str:
        lacking = [
            f"({newer}.{column} IS NULL AND {older}.{column} IS NOT NULL)"
            for column in group.columns
        ]
        lacking += [
            f"({newer}.{origin.event_id} IS NULL AND {older}.{origin.event_id} IS NOT NULL)"
            for origin in group.origins[:-1]
        ]
        return " OR ".join(dict.fromkeys(lacking))

    newer = _is_newer(_place(group))
    return f"""CASE WHEN {newer} THEN {lacks("excluded", "present")}
            ELSE {lacks("present", "excluded")} END"""


def _all_versions(groups: Sequence[Group]) -> str:
    if not any(group.origins for group in groups):
        return "{row}.versions"
    derived = ", ".join(
        f"'{column}', {_derived_version(column, group)}"
        for group in groups
        for column in group.columns
    )
    return f"coalesce({{row}}.versions, jsonb_build_object({derived}))"


def _kept_version(column: str, group: Group) -> str:
    kept = f"coalesce({{row}}.versions->>'{column}', '')"
    if not group.origins:
        return kept
    derived = _derived_version(column, group)
    return f"CASE WHEN {{row}}.versions IS NULL THEN {derived} ELSE {kept} END"


def _derived_version(column: str, group: Group) -> str:
    """Return SQL for the version that follows from the columns; empty: nobody has set it."""
    cases = " ".join(
        f"WHEN {{row}}.{origin.event_id} IS NOT NULL THEN {origin.version}"
        for origin in group.origins
    )
    return f"CASE WHEN {{row}}.{column} IS NULL THEN '' {cases} ELSE '' END"


def _place(group: Group) -> str:
    """Return SQL that sorts as the version does, without spelling it."""
    parts = (
        ([origin.rank for origin in group.origins], "{}"),
        ([f"{{row}}.{origin.time}" for origin in group.origins], f"coalesce({{}}, '{LONG_AGO}')"),
        ([origin.tie for origin in group.origins], "{}"),
        ([origin.id_sql for origin in group.origins], "coalesce({}, '') COLLATE \"C\""),
    )
    return ", ".join(
        form.replace("{}", _of_origin(group, spelled))
        for spelled, form in parts
        if len(set(spelled)) > 1 or "{row}" in spelled[0]
    )


def _of_origin(group: Group, spelled: Sequence[str]) -> str:
    """Return SQL for that of `spelled` which belongs to the first origin that has an event id."""
    chosen = spelled[-1]
    for origin, sql in reversed(list(zip(group.origins[:-1], spelled, strict=False))):
        chosen = f"CASE WHEN {{row}}.{origin.event_id} IS NOT NULL THEN {sql} ELSE {chosen} END"
    return chosen


def _is_newer(place: str) -> str:
    return f"({place.format(row='excluded')}) > ({place.format(row='present')})"


def _newer(column: str, place: str) -> str:
    return f"CASE WHEN {_is_newer(place)} THEN excluded.{column} ELSE present.{column} END"


def last_event_place(*before: str, after: Sequence[str] = (), ties_by_id: str = "true") -> str:
    """Return SQL for a row's place in the order of the last events: `before`, the time, `after`,
    and the id where `ties_by_id` holds."""
    time = f"coalesce({{row}}.last_event_at, '{LONG_AGO}')"
    by_id = "coalesce({row}.last_event_id, '')"
    if ties_by_id != "true":
        by_id = f"CASE WHEN {ties_by_id} THEN {by_id} ELSE '' END"
    return ", ".join([*before, time, *after, f'{by_id} COLLATE "C"'])


def _upsert(
    table: Table, key: str, settings: Mapping[str, str], condition: str = "true"
) -> TextClause:
    """Return the statement that inserts rows or, where the condition holds, merges them. It returns
    the keys of those."""
    columns = [key, *settings]
    values = ", ".join(f"CAST(:{column} AS {_type(table, column)}[])" for column in columns)
    assignments = ",\n        ".join(f"{column} = {sql}" for column, sql in settings.items())
    # A colon begins a parameter.
    return statement(
        f"""
    INSERT INTO {table.fullname} AS present ({", ".join(columns)})
    SELECT * FROM unnest({values})
    ON CONFLICT ({key}) DO UPDATE SET
        {_escaped(assignments)}
    WHERE {_escaped(condition)}
    RETURNING {key}
    """
    )


def _escaped(sql: str) -> str:
    return sql.replace(":", "\\:")


def _type(table: Table, column: str) -> str:
    return str(table.c[column].type.compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]
