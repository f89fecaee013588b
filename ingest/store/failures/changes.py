"""What operators change in a group of failures. Each change is in the audit log."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection

from ingest.store.failures import folding, records
from ingest.store.failures.records import COLUMNS, FailureRecord, Note, State
from ingest.store.reports import audit_log
from ingest.store.reports.audit_log import Author
from ingest.store.sql import statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Who changes which group, and why."""

    failure: int
    by: Author
    reason: str | None = None


def acknowledge(connection: Connection, change: Change) -> FailureRecord:
    """Record that somebody looks after a failure. Raises NotFound."""
    return _changed(
        connection,
        change,
        "acknowledge failure",
        lambda group, _: replace(_in(group, State.ACKNOWLEDGED), reopened_at=None),
    )


def resolve(
    connection: Connection, change: Change, *, in_release: str | None = None
) -> FailureRecord:
    """Record that a failure is mended: if it returns, it is opened and told.

    Args:
        connection: in whose transaction to record.
        change: who does so, and why.
        in_release: the release that mends it. Until that one runs everywhere, attempts of the
            releases that had the failure are no return.

    Raises:
        NotFound: there is no such group.
    """

    def resolved(group: FailureRecord, now: datetime) -> FailureRecord:
        return replace(
            _in(group, State.RESOLVED),
            resolved_at=now,
            resolved_in=in_release,
            resolves_itself=False,
            reopened_at=None,
        )

    return _changed(connection, change, "resolve failure", resolved)


def resolve_when_succeeded(connection: Connection, change: Change) -> FailureRecord:
    """Have a failure resolved once none of its jobs fails or is to be repeated. Raises NotFound."""
    return _changed(
        connection,
        change,
        "resolve failure when all has succeeded",
        lambda group, _: replace(
            group if group.state is not State.RESOLVED else _in(group, State.OPEN),
            resolves_itself=True,
            reopened_at=None,
        ),
    )


def mute(
    connection: Connection,
    change: Change,
    *,
    until: datetime | None = None,
    times: int | None = None,
) -> FailureRecord:
    """Take a failure from the list until a time, until it has happened so many times more, or for
    ever. Raises NotFound."""

    def muted(group: FailureRecord, _: datetime) -> FailureRecord:
        return replace(
            _in(group, State.MUTED),
            muted_until=until,
            muted_to=None if times is None else group.attempts + times,
            resolved_at=None,
            resolved_in=None,
            reopened_at=None,
        )

    return _changed(connection, change, "mute failure", muted)


def reopen(connection: Connection, change: Change) -> FailureRecord:
    """Record that a failure is not mended, muted or looked after. Raises NotFound."""

    def opened(group: FailureRecord, _: datetime) -> FailureRecord:
        return replace(_in(group, State.OPEN), resolves_itself=False, reopened_at=None)

    return _changed(connection, change, "reopen failure", opened)


def assign(connection: Connection, change: Change, *, to: str | None) -> FailureRecord:
    """Give a failure to somebody, or to nobody. Raises NotFound."""
    return _changed(
        connection,
        change,
        "assign failure",
        lambda group, _: replace(group, assigned_to=to),
        detail=f" to {to or 'nobody'}",
    )


_NOTE = statement(
    """
    INSERT INTO ingest.failure_notes (failure, by, text) VALUES (:failure, :by, :text)
    RETURNING id, at, by, text
    """
)


def note(connection: Connection, change: Change, *, text: str) -> Note:
    """Keep what somebody writes about a failure. Raises NotFound."""
    _changed(connection, change, "note on failure", lambda group, _: group)
    parameters = {"failure": change.failure, "by": change.by.name, "text": text}
    return Note(**connection.execute(_NOTE, parameters).mappings().one())


Alter = Callable[[FailureRecord, datetime], FailureRecord]
"""Returns what a group becomes, by the server's time."""

# The time is that after waiting for the lock, so that it is not before what is counted already.
_LOCK = statement("SELECT true FROM ingest.failure_groups WHERE id = :id FOR UPDATE")
_LOCKED = statement(
    f"SELECT {COLUMNS}, clock_timestamp() AS now FROM ingest.failure_groups WHERE id = :id"
)


def _changed(
    connection: Connection,
    change: Change,
    action: str,
    alter: Alter,
    *,
    detail: str = "",
) -> FailureRecord:
    """Store what `alter` makes of a group, and who did so; return it. Raises NotFound."""
    if connection.execute(_LOCK, {"id": change.failure}).first() is None:
        raise records.missing(change.failure)
    row = dict(connection.execute(_LOCKED, {"id": change.failure}).mappings().one())
    now = row.pop("now")
    before = records.record(row)
    after = alter(before, now)
    if after.state is not before.state:
        after = replace(after, changed_at=now, changed_by=change.by.name)
    folding.save(connection, after)
    audit_log.record(
        connection,
        by=change.by,
        action=action,
        target=f"failure {change.failure}{detail}",
        reason=change.reason,
    )
    return after


def _in(group: FailureRecord, state: State) -> FailureRecord:
    """Return a group in a state; a mute has ended with it."""
    return replace(group, state=state, muted_until=None, muted_to=None)
