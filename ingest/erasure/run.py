"""Erasing a person, batch by batch.

Everything that is stored is read, in two ways. A search reads the read model and all bodies, again
and again until it learns nothing more about the person, and changes nothing. An erasure then reads
all of it once more and erases; after that it looks at what has come meanwhile. If it has learned
who else the person is, it reads all of it again. Every batch is a transaction that also records how
far it got, so an erasure that was killed goes on from there.

A batch of events is erased while nothing is admitted. Their jobs are revoked in the same
transaction: a worker that runs one of them, from the body that it has read, cannot commit. The read
model comes last, when no job is left that could write the person back into it.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from ingest.erasure import bodies
from ingest.erasure.person import Person, Verdict, identifiers, numbers_in
from ingest.erasure.spellings import Spellings
from ingest.ids import first_id
from ingest.sources.base import Source
from ingest.sources.operator import reader
from ingest.store import copies
from ingest.store.erasure import attempts, ledger, records, tables
from ingest.store.erasure.ledger import StoredDelivery, Unsettled
from ingest.store.erasure.records import ERASING, Erasure
from ingest.store.erasure.tables import TextTable
from ingest.store.repeated import PAUSE_S, is_passing

_START = UUID(int=0)
_MARGIN = timedelta(minutes=10)
"""A delivery may be committed so long after the time that its id carries."""
_MOST_ROUNDS = 5
_MOST_TRIES = 60
_SAMPLE = 5
"""Events whose ids a preview shows."""


@dataclass(slots=True)
class Counts:
    """What was found or erased, each thing once."""

    sources: Counter[str] = field(default_factory=Counter)
    """Deliveries by source."""
    tables: Counter[str] = field(default_factory=Counter)
    """Rows by table."""
    jobs: int = 0
    """Given up, because they had not succeeded."""
    sample: list[str] = field(default_factory=list)
    """The ids of some of the events."""

    @property
    def total(self) -> int:
        """Return the rows of all tables."""
        return self.tables.total()

    def clear(self) -> None:
        """Begin to count anew."""
        self.sources.clear()
        self.tables.clear()
        self.sample.clear()
        self.jobs = 0

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "sources": dict(self.sources),
            "tables": dict(self.tables),
            "jobs": self.jobs,
            "sample": self.sample,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Counts":
        """Return what `to_json` made; of an empty document nothing."""
        return cls(
            sources=Counter(document.get("sources", {})),
            tables=Counter(document.get("tables", {})),
            jobs=document.get("jobs", 0),
            sample=list(document.get("sample", [])),
        )


@dataclass(slots=True)
class Position:
    """How far a search or an erasure has got."""

    round: int = 1
    place: int = 0
    after: Any = None
    """The key of the last row of the place that was read; None: it begins."""
    identity: int = -1
    """How much was known of who the person is when the round began."""
    known: int = -1
    """Of a search: how much was known at all when the round before ended. Of an erasure: the last
    round that read everything; others read what came since it was requested."""
    erased: int = 0
    """Deliveries that were erased in this round."""
    read: int = 0
    """Rows that were read in all rounds."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Eraser:
    """Reads everything for a person, and erases it."""

    sources: Mapping[str, Source]
    source: str | None = None
    """Only the events of this one, and its read model; None: everything."""

    def search_batch(
        self, connection: Connection, person: Person, position: Position, counts: Counts
    ) -> bool:
        """Read the next batch, learn from it and count; return whether the search has ended."""
        if position.place == 0 and position.after is None:
            if position.identity != person.identity_size:
                person.forget_belongings()
            position.identity = person.identity_size
            counts.clear()
        places = self._places(search=True)
        batch = _Batch(self, person, connection)
        position.after = batch.read(places[position.place], position.after)
        position.read += batch.rows_read
        batch.count(counts)
        if position.after is not None:
            return False
        position.place += 1
        if position.place < len(places):
            return False
        has_learned = position.identity != person.identity_size or position.known != person.size
        position.known, position.place = person.size, 0
        position.round += 1
        return not has_learned or position.round > _MOST_ROUNDS

    def erase_batch(self, connection: Connection, erasure: Erasure) -> bool:
        """Erase what the next batch holds, and record it; return whether nothing is left.

        Raises:
            Unsettled, OperationalError: to be repeated.
        """
        person = Person.from_json(erasure.identifiers or {})
        position = Position(**erasure.position)
        counts = Counts.from_json(erasure.counts)
        places = self._places(search=False)
        if position.place == 0 and position.after is None:
            if position.round == 1 or position.identity != person.identity_size:
                position.known = position.round
            else:
                position.after = str(first_id(erasure.requested_at - _MARGIN))
            position.identity = person.identity_size
        batch = _Batch(self, person, connection)
        place = places[position.place]
        position.after = batch.read(place, position.after)
        position.read += batch.rows_read
        position.erased += batch.erase(erasure.id, counts)
        has_ended = False
        if position.after is None:
            is_late = position.round > 1 and position.known != position.round
            has_learned = position.identity != person.identity_size
            is_quiet = is_late and position.place == 0 and not (position.erased or has_learned)
            position.place += 1
            if position.place == len(places):
                position.round, position.place, position.erased = position.round + 1, 0, 0
            has_ended = is_quiet or position.round > _MOST_ROUNDS
        records.save(
            connection,
            erasure.id,
            identifiers=person.to_json(),
            position=position.to_json(),
            counts=counts.to_json(),
        )
        if has_ended:
            records.finish(connection, erasure.id)
        return has_ended

    def _places(self, *, search: bool) -> Sequence["_Place"]:
        """Return what is read, in its order: a search learns from the read model first."""
        read_model = tuple(filter(self._is_meant, tables.READ_MODEL))
        others = () if self.source else ("attempts", *_OTHER_TABLES)
        ledger_places = ("deliveries", "events", *others)
        return (*read_model, *ledger_places) if search else (*ledger_places, *read_model)

    def _is_meant(self, table: TextTable) -> bool:
        return self.source is None or self.model_of(table) == self._scope(self.source)

    def model_of(self, table: TextTable) -> str:
        """Return the read model that a table belongs to: its name's beginning, or the other one."""
        models = {source.read_model for source in self.sources.values() if source.read_model}
        beginnings = [model for model in models if table.name.startswith(f"{model}_")]
        return beginnings[0] if beginnings else _FIRST_MODEL

    def _scope(self, slug: str) -> str:
        return bodies.scope_of(slug, self.sources.get(slug))


_Place = str | TextTable
_OTHER_TABLES = (*tables.OPERATORS, *tables.REQUESTS, *tables.VIEWS)
_FIRST_MODEL = "shop"
"""The read model whose tables have no common beginning."""


class _Batch:
    """A batch of rows of one place: which of them have to do with the person."""

    def __init__(self, eraser: Eraser, person: Person, connection: Connection) -> None:
        self._eraser = eraser
        self._person = person
        self._connection = connection
        self.rows_read = 0
        self._place: _Place = ""
        self._deliveries: list[StoredDelivery] = []
        self._events: list[UUID] = []
        self._attempts: list[tuple[int, int]] = []
        self._rows: list[tuple[Verdict, Mapping[str, Any], set[str]]] = []
        """Each with the numbers that are another's in it."""

    def read(self, place: _Place, after: Any) -> Any:
        """Read the next batch of a place; return where it ended; None: the place is done."""
        self._place = place
        if isinstance(place, TextTable):
            return self._read_table(place, after)
        if place == "deliveries":
            return self._read_deliveries(UUID(after) if after else _START)
        if place == "events":
            return self._read_events(UUID(after) if after else _START)
        return self._read_attempts(after)

    def count(self, counts: Counts) -> None:
        """Add what was found to counts."""
        counts.sources.update(delivery.source for delivery in self._deliveries)
        events = [str(one.event) for one in self._deliveries if one.event == one.id]
        counts.sample += events[: _SAMPLE - len(counts.sample)]
        rows = {
            "deliveries": len(self._deliveries),
            "events": len(self._events) + len(events),
            "attempts": len(self._attempts),
        }
        if isinstance(self._place, TextTable):
            rows[self._place.name] = len(self._rows)
        counts.tables.update({table: number for table, number in rows.items() if number})

    def erase(self, number: int, counts: Counts) -> int:
        """Erase what was found and count it; return how many deliveries and events that were."""
        if self._deliveries or self._events:
            return self._erase_events(number, counts)
        if self._attempts:
            counts.tables["attempts"] += attempts.forget(self._connection, self._attempts)
        if isinstance(self._place, TextTable):
            self._erase_rows(self._place, counts)
        return 0

    def _erase_events(self, number: int, counts: Counts) -> int:
        connection = self._connection
        deliveries = [delivery.id for delivery in self._deliveries]
        ledger.stop_admission(connection, deliveries)
        named = {*ledger.events_of(connection, deliveries), *self._events}
        made = copies.made_of(connection, sorted(named))
        ledger.stop_admission(connection, made)
        deliveries += made
        events = sorted({*named, *made})
        erased = ledger.erase(
            connection, deliveries, events, is_personal=self._person.spellings().are_in
        )
        new_events = records.note_events(connection, number, events)
        counts.sources.update(delivery.source for delivery in self._deliveries)
        counts.sample += [str(event) for event in events][: _SAMPLE - len(counts.sample)]
        counts.jobs += erased.jobs
        rows = {
            "deliveries": erased.deliveries,
            "events": new_events,
            "attempts": erased.attempts,
        }
        counts.tables.update({table: count for table, count in rows.items() if count})
        return len(deliveries) + len(self._events)

    def _erase_rows(self, place: TextTable, counts: Counts) -> None:
        usual = self._spellings_of(place)
        for verdict, row, others in self._rows:
            if verdict is Verdict.OWN:
                tables.remove(self._connection, place, row)
            else:
                spellings = self._person.spellings(without=others) if others else usual
                tables.blank(self._connection, place, row, is_personal=spellings.are_in)
            counts.tables[place.name] += 1

    def _read_deliveries(self, after: UUID) -> str | None:
        stored, end = ledger.deliveries_after(self._connection, after)
        self.rows_read = len(stored)
        spellings = self._person.spellings()
        only = self._eraser.source
        for delivery in stored:
            if only is not None and reader(delivery.source, delivery.event_id) != only:
                continue
            size = self._person.size
            if self._is_meant(delivery, spellings):
                self._deliveries.append(delivery)
            if self._person.size != size:
                spellings = self._person.spellings()
        return None if end is None else str(end)

    def _is_meant(self, delivery: StoredDelivery, spellings: Spellings) -> bool:
        slug = reader(delivery.source, delivery.event_id)
        source = self._eraser.sources.get(slug)
        named = bodies.named_in(source, delivery.type, delivery.body)
        verdict = self._person.weigh(bodies.scope_of(slug, source), named)
        if verdict is Verdict.ANOTHERS:
            spellings = self._person.spellings(without=numbers_in(named))
        elif verdict is not Verdict.NOTHING:
            return True
        return any(map(spellings.are_in, (delivery.body, delivery.headers, delivery.event_id)))

    def _read_events(self, after: UUID) -> str | None:
        rows = ledger.events_after(self._connection, after)
        self.rows_read = len(rows)
        spellings = self._person.spellings()
        only = self._eraser.source
        self._events = [
            row.id
            for row in rows
            if (only is None or reader(row.source, row.event_id) == only)
            and (spellings.are_in(row.event_id) or spellings.are_in(row.type))
        ]
        return str(rows[-1].id) if rows else None

    def _read_attempts(self, after: Sequence[int] | None) -> list[int] | None:
        rows = attempts.after(self._connection, after)
        self.rows_read = len(rows)
        spellings = self._person.spellings()
        self._attempts = [
            (row.job, row.number)
            for row in rows
            if spellings.are_in(row.error_message) or spellings.are_in(row.traceback)
        ]
        return [rows[-1].job, rows[-1].number] if rows else None

    def _read_table(self, place: TextTable, after: Sequence[Any] | None) -> list[Any] | None:
        rows = tables.rows_after(self._connection, place, after)
        self.rows_read = len(rows)
        spellings = self._spellings_of(place)
        for row in rows:
            size = self._person.size
            verdict, others = self._weigh(place, row, spellings)
            if self._person.size != size:
                spellings = self._spellings_of(place)
            if verdict is not Verdict.NOTHING:
                self._rows.append((verdict, row, others))
        return tables.key_of(place, rows[-1]) if rows else None

    def _weigh(
        self, place: TextTable, row: Mapping[str, Any], spellings: Spellings
    ) -> tuple[Verdict, set[str]]:
        """Return what a row has to do with the person, and the numbers that are another's in it."""
        others: set[str] = set()
        named = _named(place, row)
        verdict = self._person.weigh(self._eraser.model_of(place), named)
        if verdict is Verdict.ANOTHERS:
            verdict, others = Verdict.NOTHING, numbers_in(named)
            spellings = self._person.spellings(without=others)
        if verdict is Verdict.NOTHING and self._mentions(place, row, spellings):
            verdict = Verdict.MENTIONS
        return verdict, others

    def _mentions(self, place: TextTable, row: Mapping[str, Any], spellings: Spellings) -> bool:
        return any(map(spellings.are_in, tables.texts_of(place, row)))

    def _spellings_of(self, place: TextTable) -> Spellings:
        if place in (*tables.OPERATORS, *tables.VIEWS):
            return self._person.operator_spellings()
        return self._person.spellings()


def _named(place: TextTable, row: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    return {
        kind: frozenset(
            identifier for column in columns for identifier in identifiers(kind, row[column])
        )
        for kind, columns in place.fields.items()
    }


def advance(engine: Engine, eraser_of: Callable[[Erasure], Eraser], number: int) -> Erasure:
    """Do the next batch of a request; return it as it is afterwards.

    Concurrent callers wait for each other, and each batch is done once. Where somebody else holds
    what a batch needs, it is repeated.

    Raises:
        SQLAlchemyError: PostgreSQL is away, or something stays locked; the batch was not done.
    """
    for tries_left in reversed(range(_MOST_TRIES)):
        try:
            with engine.begin() as connection:
                erasure = records.read(connection, number, hold=True)
                if erasure.status == ERASING:
                    eraser_of(erasure).erase_batch(connection, erasure)
                return records.read(connection, number)
        except Unsettled:
            pass
        except OperationalError as error:
            if not tries_left or not is_passing(error):
                raise
        time.sleep(PAUSE_S)
    raise AssertionError("unreachable")
