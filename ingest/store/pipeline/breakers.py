"""The circuit breakers of processors: whose target is down, and which job probes it.

A breaker has a row once a worker that has the processor has started. While it is open, the
processor's jobs wait as those of a paused one do, all but the probe: `MAY_RUN` is the condition of
every claim. What attempts do to a breaker is decided in `breaker_state`; the relay chooses the
probes (workers.relay.probing). A processor without a breaker has no row, and costs no statement.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, Row

from ingest.store import arrays
from ingest.store.pipeline.breaker_state import Decision, Ended, State, decide
from ingest.store.sql import statement

OPEN = "ARRAY(SELECT b.processor FROM ingest.breakers b WHERE b.opened_at IS NOT NULL)"
"""The processors whose breaker is open."""
# In a subplan that is hashed, and is not reached where no breaker is open.
IS_PROBE = "((id, attempt) IN (SELECT b.probe_job, b.probe_attempt FROM ingest.breakers b)) IS TRUE"
"""The condition that a waiting job is a probe that nobody has claimed."""
MAY_RUN = f"(processor <> ALL({OPEN}) OR {IS_PROBE})"
"""The condition that no breaker holds a waiting job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A breaker as a worker registers it."""

    processor: str
    watches: str
    """The errors that say that the target is down, for people."""
    opens_after: int
    probe_every_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRecord:
    """A processor's breaker: whether its target is down."""

    watches: str
    """The errors that say that the target is down."""
    opens_after: int
    """It opens after so many of them in a row, over all workers."""
    probe_every_s: float
    """While it is open: seconds from one probe to the next."""
    failures: int
    """How many there were in a row by now, those of probes among them."""
    error_type: str | None
    """The type of the last one; null: there was none."""
    error_message: str | None
    """Its message; null: there was none, or it was erased."""
    opened_at: datetime | None
    """Since when it is open, so that only probes run; null: it is closed."""
    probe_at: datetime | None
    """While it is open: when the next probe is due."""
    probes: int
    """How many probes there were since it opened."""
    closed_at: datetime | None
    """When it closed last; null: it never did."""
    closed_by: str | None
    """Who closed it then; null: a probe did."""


_REGISTER = statement(
    """
    INSERT INTO ingest.breakers AS b (processor, watches, opens_after, probe_every_s)
    VALUES (:processor, :watches, :opens_after, :probe_every_s)
    ON CONFLICT (processor) DO UPDATE
    SET watches = excluded.watches, opens_after = excluded.opens_after,
        probe_every_s = excluded.probe_every_s
    WHERE (b.watches, b.opens_after, b.probe_every_s)
          IS DISTINCT FROM (excluded.watches, excluded.opens_after, excluded.probe_every_s)
    """
)
_FORGET = statement("DELETE FROM ingest.breakers WHERE processor = ANY(CAST(:names AS text[]))")


def register(connection: Connection, declared: Sequence[Declared], others: Sequence[str]) -> None:
    """Record the breakers of a worker; an open one stays open. Forget those of `others`, processors
    that have none any more: their jobs run."""
    for breaker in sorted(declared, key=lambda breaker: breaker.processor):
        connection.execute(_REGISTER, _parameters(breaker))
    if others:
        connection.execute(_FORGET, {"names": list(others)})


def _parameters(breaker: Declared) -> dict[str, object]:
    return {
        "processor": breaker.processor,
        "watches": breaker.watches,
        "opens_after": breaker.opens_after,
        "probe_every_s": breaker.probe_every_s,
    }


_CLOSE = """
        failures = 0, opened_at = NULL, probe_at = NULL, probe_job = NULL, probe_attempt = NULL,
        probes = 0"""
_ANSWERED = statement(
    f"""
    UPDATE ingest.breakers AS b
    SET closed_at = CASE WHEN b.opened_at IS NULL THEN b.closed_at ELSE clock_timestamp() END,
        closed_by = CASE WHEN b.opened_at IS NULL THEN b.closed_by END,{_CLOSE}
    FROM (SELECT opened_at FROM ingest.breakers WHERE processor = :processor) AS was
    WHERE b.processor = :processor AND b.failures > 0
      AND (b.opened_at IS NULL OR b.probe_job = ANY(CAST(:ids AS bigint[])))
    RETURNING was.opened_at IS NOT NULL
    """
)


def answered(connection: Connection, processor: str, job_ids: Sequence[int]) -> bool:
    """Note that jobs succeed, in the transaction in which they do: no failure is in a row with the
    next. An open breaker closes only for its probe; return whether it does."""
    parameters = {"processor": processor, "ids": arrays.literal(job_ids)}
    return bool(connection.execute(_ANSWERED, parameters).scalar())


_LOCKED = statement(
    """
    SELECT failures, opened_at IS NOT NULL AS is_open, opens_after, probe_job, probe_attempt
    FROM ingest.breakers WHERE processor = :processor FOR UPDATE
    """
)
_RECORD = statement(
    """
    UPDATE ingest.breakers
    SET failures = :failures,
        opened_at = CASE WHEN :is_open THEN coalesce(opened_at, clock_timestamp()) END,
        probe_at = CASE WHEN :is_open THEN greatest(
            coalesce(probe_at, clock_timestamp() + make_interval(secs => probe_every_s)),
            clock_timestamp() + make_interval(secs => :back_in_s)) END,
        probe_job = :probe_job, probe_attempt = :probe_attempt,
        probes = CASE WHEN :is_open THEN probes ELSE 0 END,
        closed_at = CASE WHEN :closes THEN clock_timestamp() ELSE closed_at END,
        closed_by = CASE WHEN :closes THEN NULL ELSE closed_by END,
        error_type = coalesce(:error_type, error_type),
        error_job = coalesce(:error_job, error_job),
        error_attempt = coalesce(:error_attempt, error_attempt)
    WHERE processor = :processor
    """
)


class Recorded(NamedTuple):
    """What attempts did to a breaker."""

    uncounted: frozenset[int]
    """The jobs whose attempt spends nothing."""
    opened: bool
    closed: bool


def record(connection: Connection, breaker: Declared, ended: Sequence[Ended]) -> Recorded:
    """Record attempts that ended without success, in the order in which they did.

    Args:
        connection: of the transaction that records the attempts too.
        breaker: as this worker has it. It is registered anew if another release has none.
        ended: the attempts.
    """
    row = connection.execute(_LOCKED, {"processor": breaker.processor}).one_or_none()
    if row is None:
        connection.execute(_REGISTER, _parameters(breaker))
        row = connection.execute(_LOCKED, {"processor": breaker.processor}).one()
    before = _state(row)
    decision = decide(before, ended, opens_after=row.opens_after)
    if decision.state != before or decision.uncounted:
        connection.execute(_RECORD, _changes(breaker, before, decision))
    return Recorded(
        uncounted=decision.uncounted,
        opened=decision.state.is_open and not before.is_open,
        closed=before.is_open and not decision.state.is_open,
    )


def _state(row: Row[tuple[object, ...]]) -> State:
    probe = None if row.probe_job is None else (row.probe_job, row.probe_attempt + 1)
    return State(failures=row.failures, is_open=row.is_open, probe=probe)


def _changes(breaker: Declared, before: State, decision: Decision) -> dict[str, object]:
    after, last = decision.state, decision.last
    return {
        "processor": breaker.processor,
        "failures": after.failures,
        "is_open": after.is_open,
        "closes": before.is_open and not after.is_open,
        "back_in_s": decision.back_in_s,
        "probe_job": after.probe[0] if after.probe else None,
        "probe_attempt": after.probe[1] - 1 if after.probe else None,
        "error_type": last.error_type if last else None,
        "error_job": last.id if last else None,
        "error_attempt": last.attempt if last else None,
    }


class Due(NamedTuple):
    """An open breaker whose next probe is due."""

    processor: str
    probe: tuple[int, int] | None
    """The probe before: the job, and how many attempts it had when it was chosen; None: that has
    ended."""


# Of a paused processor nothing runs. Another relay that has locked a row chooses its probe.
_DUE = statement(
    """
    SELECT processor, probe_job, probe_attempt FROM ingest.breakers
    WHERE opened_at IS NOT NULL AND probe_at <= now() AND processor <> ALL(ARRAY(
        SELECT name FROM ingest.processors WHERE paused_at IS NOT NULL
    ))
    ORDER BY processor FOR UPDATE SKIP LOCKED
    """
)


def due(connection: Connection) -> list[Due]:
    """Return the open breakers whose probe is due, locked until the transaction ends."""
    return [
        Due(row.processor, None if row.probe_job is None else (row.probe_job, row.probe_attempt))
        for row in connection.execute(_DUE)
    ]


_CHOOSE = statement(
    """
    UPDATE ingest.breakers
    SET probe_job = :job, probe_attempt = :attempt, probes = probes + 1,
        probe_at = now() + make_interval(secs => probe_every_s)
    WHERE processor = :processor
    """
)


def choose(connection: Connection, processor: str, probe: tuple[int, int]) -> None:
    """Let a waiting job of a processor run as the probe: the job, and how many attempts it has
    had."""
    parameters = {"processor": processor, "job": probe[0], "attempt": probe[1]}
    connection.execute(_CHOOSE, parameters)


_RECORDS = statement(
    """
    SELECT b.processor, b.watches, b.opens_after, b.probe_every_s, b.failures, b.error_type,
           a.error_message, b.opened_at, b.probe_at, b.probes, b.closed_at, b.closed_by
    FROM ingest.breakers b
    LEFT JOIN LATERAL (
        SELECT error_message FROM ingest.attempts
        WHERE job = b.error_job AND number = b.error_attempt LIMIT 1
    ) AS a ON true
    ORDER BY b.processor
    """
)


def records(connection: Connection) -> dict[str, BreakerRecord]:
    """Return the breakers by the names of their processors."""
    rows = connection.execute(_RECORDS).mappings()
    return {
        row["processor"]: BreakerRecord(
            **{name: value for name, value in row.items() if name != "processor"}
        )
        for row in rows
    }


def open_ones(connection: Connection) -> dict[str, BreakerRecord]:
    """Return the breakers that are open, by the names of their processors."""
    return {
        processor: breaker
        for processor, breaker in records(connection).items()
        if breaker.opened_at is not None
    }


_CLOSE_BY_HAND = statement(
    f"""
    UPDATE ingest.breakers SET closed_at = now(), closed_by = :by,{_CLOSE}
    WHERE processor = :processor AND opened_at IS NOT NULL
    """
)


def close(connection: Connection, processor: str, *, by: str) -> bool:
    """Close an open breaker: the processor's jobs run. Return whether it was open."""
    parameters = {"processor": processor, "by": by}
    return connection.execute(_CLOSE_BY_HAND, parameters).rowcount > 0


_PROBE_NOW = statement(
    "UPDATE ingest.breakers SET probe_at = now()"
    " WHERE processor = :processor AND opened_at IS NOT NULL"
)


def probe_now(connection: Connection, processor: str) -> bool:
    """Make the next probe of an open breaker due now, whatever the target asked for. Return whether
    it was open."""
    return connection.execute(_PROBE_NOW, {"processor": processor}).rowcount > 0
