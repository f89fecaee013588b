"""How many jobs each processor has to do or has given up, counted within the time that somebody
waits for a page."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from ingest.store.sql import statement
from ingest.store.tally import tally

BUDGET_S = 0.01
"""Seconds for what waits, what runs and what is dead, each. Rows that are in memory take a few
microseconds each, from the disk up to a hundred."""
MOST_DEAD = 100_000
MOST_PARKED = 50_000
"""Of one processor in one queue."""

_STATES_OF = {
    "SELECT processor, state FROM ingest.jobs WHERE due_at IS NOT NULL ORDER BY queue, due_at": (
        "pending",
        "retrying",
    ),
    "SELECT processor, state FROM ingest.jobs WHERE lease_until IS NOT NULL ORDER BY lease_until": (
        "running",
    ),
    "SELECT processor, state FROM ingest.jobs WHERE state = 'dead' AND discarded_at IS NULL"
    " ORDER BY event DESC": ("dead",),
}
"""The states that each statement counts, in the order of a small index."""
STATES = tuple(state for states in _STATES_OF.values() for state in states)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """Jobs that wait, that run, and that are dead and not discarded."""

    counts: Mapping[tuple[str, str], int]
    """By processor and state."""
    at_least: frozenset[str]
    """The states in which there may be more: the time was up."""

    def of(self, processor: str) -> dict[str, int]:
        """Return the number of a processor's jobs in each of `STATES`."""
        return {state: self.counts.get((processor, state), 0) for state in STATES}

    def total(self, state: str) -> int:
        """Return the number of all jobs in a state."""
        return sum(count for (_, its), count in self.counts.items() if its == state)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfinishedJobs:
    """How many jobs are not done, whatever their processors."""

    pending: int
    retrying: int
    running: int
    dead: int
    """Dead letters that nobody has discarded."""
    at_least: tuple[str, ...]
    """Which of these there may be more of: a page counts for a moment only."""


def read(connection: Connection) -> Unfinished:
    """Count unfinished jobs, for `BUDGET_S` in each kind of states."""
    counts: dict[tuple[str, str], int] = {}
    at_least: set[str] = set()
    for query, states in _STATES_OF.items():
        tallied = tally(connection, query, budget_s=BUDGET_S)
        counts |= {(processor, state): n for (processor, state), n in tallied.counts.items()}
        at_least |= set() if tallied.is_whole else set(states)
    return Unfinished(counts=counts, at_least=frozenset(at_least))


# The index tells all of it, so 20,000 take 3 ms; by processor each would have to be looked up.
_DEAD = statement(
    """
    SELECT count(*) FROM (
        SELECT FROM ingest.jobs WHERE state = 'dead' AND discarded_at IS NULL
        ORDER BY event DESC LIMIT :most
    ) AS dead
    """
)


def dead(connection: Connection, *, most: int) -> int:
    """Count dead letters, up to `most`."""
    return int(connection.execute(_DEAD, {"most": most}).scalar_one())


def together(connection: Connection, counted: Unfinished) -> UnfinishedJobs:
    """Return the numbers of all processors; dead letters are counted up to `MOST_DEAD`."""
    all_dead = dead(connection, most=MOST_DEAD)
    at_least = counted.at_least - {"dead"} | ({"dead"} if all_dead == MOST_DEAD else set())
    return UnfinishedJobs(
        pending=counted.total("pending"),
        retrying=counted.total("retrying"),
        running=counted.total("running"),
        dead=all_dead,
        at_least=tuple(sorted(at_least)),
    )
