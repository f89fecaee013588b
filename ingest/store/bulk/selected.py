"""Which jobs and events an action on a selection touches, and how many they are."""

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from ingest.store.reports.failures import ERROR_TYPE, PLACE, RAISED_AT
from ingest.store.schema import STATES
from ingest.store.search.filters import DISCARDED, UNHANDLED, EventFilter, none_more_urgent, where
from ingest.store.sql import statement

REPLAY, DISCARD = "replay", "discard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many jobs and events an operation touches."""

    jobs: int = 0
    """Requeued, or discarded."""
    events: int = 0
    """Without the job in question: admitted again, which makes it."""
    running: int = 0
    """Jobs left alone because they run."""
    gone: int = 0
    """Jobs and events left alone because their body was erased or dropped."""
    succeeded: int = 0
    """Jobs left alone because they have succeeded."""

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            jobs=self.jobs + other.jobs,
            events=self.events + other.events,
            running=self.running + other.running,
            gone=self.gone + other.gone,
            succeeded=self.succeeded + other.succeeded,
        )

    @property
    def total(self) -> int:
        """Return the jobs and events that are acted on."""
        return self.jobs + self.events


# Of EXISTS the planner makes a join that reads all bodies.
HAS_BODY = """coalesce((SELECT true FROM ingest.deliveries
                    WHERE deliveries.id = events.id AND body IS NOT NULL LIMIT 1), false)"""
NEEDS = {REPLAY: HAS_BODY, DISCARD: "true"}
"""The condition that a job meets for an action: without its body it cannot be replayed."""


def count(connection: Connection, selection: EventFilter, *, action: str = REPLAY) -> Counts:
    """Count what the action would touch now."""
    condition = where(selection)
    parameters = condition.parameters | job_parameters(selection)
    everything = replace(selection, leave_succeeded=False)
    row = connection.execute(
        statement(
            f"""
            SELECT count(*) FILTER (WHERE jobs.state = 'running') AS running,
                   count(*) FILTER (WHERE NOT ({_chosen(selection)})) AS succeeded,
                   count(*) FILTER (WHERE {_chosen(selection)} AND jobs.state <> 'running'
                                    AND {NEEDS[action]}) AS jobs,
                   count(*) FILTER (WHERE {_chosen(selection)} AND jobs.state <> 'running'
                                    AND NOT {NEEDS[action]}) AS gone
            FROM ingest.jobs JOIN ingest.events ON events.id = jobs.event
            WHERE {condition.sql} AND {job_conditions(everything, action)}
            """
        ),
        parameters,
    ).one()
    counts = Counts(jobs=row.jobs, running=row.running, gone=row.gone, succeeded=row.succeeded)
    if action == REPLAY and includes_events(selection):
        row = connection.execute(
            statement(
                f"""
                SELECT count(*) FILTER (WHERE {HAS_BODY}) AS events,
                       count(*) FILTER (WHERE NOT {HAS_BODY}) AS gone
                FROM ingest.events WHERE {condition.sql} AND {lacks_job(selection)}
                """
            ),
            parameters,
        ).one()
        counts += Counts(events=row.events, gone=row.gone)
    return counts


def by_processor(
    connection: Connection, selection: EventFilter, *, action: str = REPLAY
) -> list[tuple[str, int]]:
    """Count the jobs of each processor that the action would touch now, the most first."""
    condition = where(selection)
    rows = connection.execute(
        statement(
            f"""
            SELECT jobs.processor, count(*) AS jobs
            FROM ingest.jobs JOIN ingest.events ON events.id = jobs.event
            WHERE {condition.sql} AND {job_conditions(selection, action)}
              AND jobs.state <> 'running' AND {NEEDS[action]}
            GROUP BY jobs.processor ORDER BY count(*) DESC, jobs.processor
            """
        ),
        condition.parameters | job_parameters(selection),
    )
    return [(row.processor, row.jobs) for row in rows]


_LAST = "SELECT {what} FROM ingest.attempts a WHERE a.job = jobs.id AND a.number = jobs.attempt"
_IS_PLACE = f"({PLACE} = :raised_at OR {RAISED_AT} = :raised_at)"


def job_conditions(selection: EventFilter, action: str) -> str:
    """Return the SQL condition on the jobs of the selected events.

    A job is selected by the state of the event, or of the event as far as its processor goes.
    Without a state and without ids, dead letters are selected. With an error, the jobs that fail
    with it are selected. Discarded jobs are selected only where they are named. Of named events
    each job is selected, or with `leave_succeeded` those that did not succeed.
    """
    conditions = received(selection)
    state = _state(selection)
    if selection.processor is not None:
        conditions.append("jobs.processor = :processor")
    if state == UNHANDLED:
        conditions.append("false")
    elif state == DISCARDED:
        conditions.append(_IS_DISCARDED)
    elif state == "dead" and not selection.names_events:
        conditions.append(_IS_DEAD)
    elif state is not None:
        assert state in STATES  # put into the statement, so that its indexes are known to be such
        conditions.append(f"jobs.state = '{state}'")
    elif selection.is_of_failures:
        conditions.append("jobs.state IN ('dead', 'retrying') AND jobs.discarded_at IS NULL")
    if selection.replay is not None:
        conditions.append("jobs.replay = :replay")
    if selection.taken_back is not None:
        conditions.append(_TAKEN_BACK)
    says_which = selection.processor or selection.names_events or selection.is_of_operation
    if not (state in (None, UNHANDLED) or says_which):
        conditions.append(none_more_urgent(state))
    if selection.error_type is not None:
        conditions.append(f"({_LAST.format(what=ERROR_TYPE)}) = :error_type")
    if selection.raised_at is not None:
        conditions.append(f"({_LAST.format(what=_IS_PLACE)}) IS TRUE")
    if action == DISCARD:
        conditions.append(_DISCARDABLE)
    return " AND ".join([*conditions, _chosen(selection)])


_IS_DEAD = "jobs.state = 'dead' AND jobs.discarded_at IS NULL"
_IS_DISCARDED = "jobs.discarded_at IS NOT NULL"


def received(selection: EventFilter) -> list[str]:
    """Return the SQL conditions on the jobs of events that were received within the selection's
    times. The planner does not conclude them from those on the events."""
    since = ["jobs.event >= CAST(:since AS uuid)"] if selection.since is not None else []
    until = ["jobs.event < CAST(:until AS uuid)"] if selection.until is not None else []
    return since + until


def way_to_jobs(selection: EventFilter) -> str:
    """Return the SQL condition of the smallest index that has all jobs of a selection in the order
    of their events."""
    ways = {"dead": _IS_DEAD, DISCARDED: _IS_DISCARDED}
    return ways.get(_state(selection) or "", "true")


_TAKEN_BACK = """coalesce((
    SELECT true FROM ingest.taken_back
    WHERE replay = :taken_back AND event = jobs.event AND job = jobs.id LIMIT 1
), false)"""


def _chosen(selection: EventFilter) -> str:
    """Return the SQL condition on a job's success."""
    return "jobs.state <> 'succeeded'" if selection.leave_succeeded else "true"


_DISCARDABLE = "jobs.state IN ('pending', 'retrying', 'dead') AND jobs.discarded_at IS NULL"


def job_parameters(selection: EventFilter, operation: int = 0) -> dict[str, Any]:
    """Return the parameters of `job_conditions`; 0 is no operation, their numbers begin with 1."""
    return {
        "operation": operation,
        "processor": selection.processor,
        "error_type": selection.error_type,
        "raised_at": selection.raised_at,
        "replay": selection.replay,
        "taken_back": selection.taken_back,
    }


def _state(selection: EventFilter) -> str | None:
    return "dead" if selection.means_what_failed else selection.state


def includes_events(selection: EventFilter) -> bool:
    """Return whether events that lack a job are selected too."""
    if selection.replay is not None:
        return False
    if selection.state is not None or selection.is_of_failures:
        return selection.state == UNHANDLED
    return selection.names_events or selection.processor is None


def lacks_job(selection: EventFilter) -> str:
    """Return the SQL condition on events that lack a job, or the job of the selected processor."""
    if selection.processor is None:
        return "events.id IN (SELECT event FROM ingest.unhandled)"
    return "NOT EXISTS (SELECT FROM ingest.jobs WHERE event = events.id AND processor = :processor)"
