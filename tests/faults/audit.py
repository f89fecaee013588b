"""Holds what the sender was told against what is there.

The sender's journal knows bodies by their digest and what happened by its number; nothing of ours,
neither names nor ids, is asked to vouch for itself.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from tests.faults.load import Journal
from tests.support.reference import read_model
from tests.support.tables import tables


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of the occurrences that were acknowledged."""

    acknowledged: int
    processed: int
    """Kept, and every job of theirs has succeeded."""
    dead: int
    """Dead letters, which are kept too."""
    lost: int
    """No such body is kept, or it is kept and nobody will work on it."""
    twice: int
    """Took effect through `db` more than once, or made two events."""
    outside: int
    """Effects outside PostgreSQL."""
    repeats: int
    """Of those, the ones that were repeated under the same key."""
    outside_missing: int
    """Jobs that have succeeded without their effect being there."""
    wrong_rows: int
    """Rows of the read model that differ from the reference."""

    @property
    def is_clean(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost or self.twice or self.wrong_rows or self.outside_missing)


def check(engine: Engine, journal: Journal, outside: Path) -> Verdict:
    """Compare a journal with the database and the file of outside effects."""
    with engine.connect() as connection:
        connection.execute(text("SET statement_timeout = '120s'"))
        events = _events_of(connection, journal)
        states = _states(connection, {event for found in events.values() for event in found})
        wrong_rows = _wrong_rows(connection)
        called = _called_outside(connection)
    owners = Counter(event for found in events.values() for event in found)
    lost = twice = dead = processed = 0
    for number in journal.acknowledged:
        found = events.get(number, set())
        merged = any(owners[event] > 1 for event in found)
        if not found or merged or any(_is_stuck(states[event]) for event in found):
            lost += 1
        elif len(found) > 1 or any(states[event]["times"] > 1 for event in found):
            twice += 1
        elif any("dead" in states[event]["states"] for event in found):
            dead += 1
        else:
            processed += 1
    effects = _outside(outside, {str(event) for event in owners})
    return Verdict(
        acknowledged=len(journal.acknowledged),
        processed=processed,
        dead=dead,
        lost=lost,
        twice=twice,
        outside=len(effects),
        repeats=sum(effects.values()) - len(effects),
        outside_missing=len({event for event in called if event in owners} - _events(effects)),
        wrong_rows=wrong_rows,
    )


def _events_of(connection: Connection, journal: Journal) -> dict[int, set[Any]]:
    """The events that each occurrence's acknowledged bodies are kept under."""
    number_of = {
        digest: number for number, digests in journal.acknowledged.items() for digest in digests
    }
    found: dict[int, set[Any]] = defaultdict(set)
    rows = connection.execute(
        text(
            """
            SELECT encode(sha256(d.body), 'hex') AS digest, e.id AS event
            FROM deliveries d
            LEFT JOIN duplicates u ON u.delivery = d.id
            JOIN events e ON e.id = coalesce(u.event, d.id)
            """
        )
    )
    for digest, event in rows:
        if digest in number_of:
            found[number_of[digest]].add(event)
    return found


def _states(connection: Connection, events: set[Any]) -> dict[Any, dict[str, Any]]:
    """Per event: how often the counter counted it, and the states of its jobs."""
    rows = connection.execute(
        text(
            """
            SELECT e.id, coalesce(max(c.times), 0) AS times, array_agg(j.state) AS states
            FROM events e LEFT JOIN jobs j ON j.event = e.id LEFT JOIN counters c ON c.event = e.id
            WHERE e.id = ANY(:events) GROUP BY e.id
            """
        ),
        {"events": list(events)},
    )
    return {row.id: {"times": row.times, "states": row.states} for row in rows}


def _is_stuck(event: dict[str, Any]) -> bool:
    """Not processed, although all is quiet."""
    unfinished = {"pending", "running", "retrying", None} & set(event["states"])
    return bool(unfinished) or (event["times"] == 0 and "dead" not in event["states"])


def _wrong_rows(connection: Connection) -> int:
    """How many rows differ from the reference over all events that are kept, dead ones aside."""
    rows = connection.execute(
        text(
            """
            SELECT e.event_id, d.body FROM events e JOIN deliveries d ON d.id = e.id
            WHERE e.source = 'awalchat'
              AND NOT EXISTS (SELECT FROM jobs WHERE event = e.id AND state <> 'succeeded'
                              AND processor NOT IN ('poison', 'counter', 'outside', 'in_order',
                                                     'limited'))
            """
        )
    )
    expected = read_model({row.event_id: bytes(row.body) for row in rows})
    found = tables(connection)
    return sum(
        expected[name].get(key) != found[name].get(key)
        for name in expected
        for key in expected[name].keys() | found[name].keys()
    )


def _called_outside(connection: Connection) -> set[Any]:
    """The events whose outside effect is said to be done."""
    found = connection.execute(
        text("SELECT event FROM jobs WHERE processor = 'outside' AND state = 'succeeded'")
    )
    return set(found.scalars())


def _events(effects: Counter[str]) -> set[UUID]:
    return {UUID(key.partition(":")[0]) for key in effects}


def _outside(path: Path, events: set[str]) -> Counter[str]:
    """How often each key of these events was written outside."""
    if not path.exists():
        return Counter()
    keys = path.read_text().splitlines()
    return Counter(key for key in keys if key.partition(":")[0] in events)
