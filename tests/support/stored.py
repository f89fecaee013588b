"""What is stored, and what must hold of it when everything has come to its end."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import Engine, text

from tests.support.generated_events import TYPES, content, is_usable, occurrence
from tests.support.reference import Row
from tests.support.reference import read_model as reference
from tests.support.rows import one, rows
from tests.support.tables import tables

TALLY = "tally"
"""The processor that writes a row into `effects` for each attempt."""
_TABLES = (
    "deliveries, unadmitted, events, duplicates, attempts, jobs, unhandled, replays, taken_back,"
    " messages, conversations, orders, order_status_changes, contacts, effects"
)


def empty(engine: Engine) -> None:
    """Nothing is stored; DELETE, as TRUNCATE makes a file a table."""
    with engine.begin() as db:
        for table in _TABLES.split(", "):
            db.execute(text(f"DELETE FROM {table}"))


def check(engine: Engine, arrived: Mapping[UUID, bytes], replayed: Mapping[int, int]) -> None:
    """Everything that must hold in the end, of the bodies that arrived by their deliveries, and the
    successes that were replayed, counted by their jobs."""
    kept = check_ledger(engine, arrived)
    check_jobs(engine, kept)
    check_history(engine)
    check_effects(engine, replayed)
    check_read_model(engine)


def check_ledger(engine: Engine, arrived: Mapping[UUID, bytes]) -> dict[UUID, bytes]:
    """One event an occurrence, every delivery with its own; returns the bodies that count."""
    assert one(engine, "SELECT count(*) FROM unadmitted") == 0
    found = rows(
        engine,
        "SELECT id AS delivery, id AS event, false AS conflict FROM events"
        " UNION ALL SELECT delivery, event, conflict FROM duplicates",
    )
    assert sorted(row["delivery"] for row in found) == sorted(arrived)
    event_of: dict[tuple[str, ...], UUID] = {}
    for row in found:
        event = event_of.setdefault(occurrence(arrived[row["delivery"]]), row["event"])
        assert row["event"] == event
        differs = content(arrived[row["delivery"]]) != content(arrived[event])
        assert row["conflict"] == differs
    assert one(engine, "SELECT count(*) FROM events") == len(event_of)
    return {event: arrived[event] for event in event_of.values()}


def check_jobs(engine: Engine, kept: Mapping[UUID, bytes]) -> None:
    """A job for each processor, succeeded unless nobody can use the payload."""
    expected = {}
    for event, body in kept.items():
        event_type = json.loads(body)["event"]
        if event_type in TYPES:
            keeper = event_type.partition(".")[0] + "s"
            expected[event, keeper] = "succeeded" if is_usable(body) else "dead"
            expected[event, TALLY] = "succeeded"
    found = rows(engine, "SELECT event, processor, state FROM jobs")
    assert {(row["event"], row["processor"]): row["state"] for row in found} == expected
    assert len(found) == len(expected)


def check_history(engine: Engine) -> None:
    """Every attempt that ended is told once, and the death of a dead job is its last."""
    found = rows(
        engine,
        "SELECT j.state, j.attempt, array_agg(a.number ORDER BY a.number) AS numbers,"
        " (array_agg(a.outcome ORDER BY a.number DESC))[1] AS last"
        " FROM jobs j LEFT JOIN attempts a ON a.job = j.id GROUP BY j.id",
    )
    for row in found:
        told = [each for each in row["numbers"] if each is not None]
        standing = [row["attempt"]] if row["state"] == "succeeded" else []
        assert told + standing == list(range(1, row["attempt"] + 1))
        assert row["state"] != "dead" or row["last"] == "discarded"


def check_effects(engine: Engine, replayed: Mapping[int, int]) -> None:
    """One effect, and one more for each success that was replayed, by the attempt that the ledger
    says succeeded."""
    took_effect = rows(engine, "SELECT event, attempt FROM effects")
    succeeded = rows(
        engine,
        "SELECT event, attempt FROM jobs WHERE processor = :tally"
        " UNION ALL SELECT j.event, a.number FROM attempts a JOIN jobs j ON j.id = a.job"
        " WHERE j.processor = :tally AND a.outcome = 'succeeded'",
        tally=TALLY,
    )
    assert _counted(took_effect) == _counted(succeeded)
    times = Counter(row["event"] for row in took_effect)
    jobs = rows(engine, "SELECT id, event FROM jobs WHERE processor = :tally", tally=TALLY)
    assert times == {row["event"]: 1 + replayed.get(row["id"], 0) for row in jobs}


def _counted(found: Sequence[Row]) -> Counter[tuple[UUID, int]]:
    return Counter((row["event"], row["attempt"]) for row in found)


def check_read_model(engine: Engine) -> None:
    """The rows are those of the set of events that can be used."""
    found = rows(engine, "SELECT e.event_id, d.body FROM events e JOIN deliveries d ON d.id = e.id")
    usable = {
        row["event_id"]: row["body"]
        for row in found
        if json.loads(row["body"])["event"] in TYPES and is_usable(row["body"])
    }
    with engine.connect() as db:
        assert tables(db) == reference(usable)
