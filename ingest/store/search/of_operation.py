"""Conditions on events that a replay or discard has acted on (ingest.store.bulk)."""

from ingest.store.search.body_conditions import Condition


def replayed(operation: int, job: str, processor: str | None) -> Condition:
    """Return the condition that an event has a job which meets `job`, a condition with the
    parameters `replay` and `processor`."""
    sql = (
        f"coalesce((SELECT true FROM ingest.jobs WHERE event = events.id AND {job} LIMIT 1), false)"
    )
    named = {} if processor is None else {"processor": processor}
    return sql, {"replay": operation, **named}


def taken_back(operation: int) -> Condition:
    """Return the condition that an operation took back the event, or a job of it."""
    sql = """coalesce((
        SELECT true FROM ingest.taken_back
        WHERE replay = :taken_back AND event = events.id LIMIT 1
    ), false)"""
    return sql, {"taken_back": operation}
