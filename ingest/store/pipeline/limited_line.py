"""The line of a processor with limits: its jobs that wait, by key, and the turns of the keys.

A job is in the line from when a worker gets its id until it has run or waits for something else.
`limited_keys` has a row for each key with waiting jobs, so that a key at its own limit is passed
over whatever waits of it. Its `turn` is that of its next job (start-time fair queueing): the lowest
is next, a start moves it by one, and a key that comes new begins after the turn that is on.

Jobs without a key share one that has no limits of its own; replays of them, another.

Which jobs run is counted in the jobs themselves, in a statement of its own after the row of the
limits was locked. So no other transition of a job needs to know of limits: what does not run any
more is noticed here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Row

from ingest import queues
from ingest.rates import Log
from ingest.store import arrays
from ingest.store.pipeline import limits
from ingest.store.pipeline import unread as unread_jobs
from ingest.store.pipeline.jobs import JobRef
from ingest.store.pipeline.limits import Bounds
from ingest.store.pipeline.unread import UnreadJob
from ingest.store.sql import statement

NO_KEY = UUID(int=0)
REPLAYS = UUID(int=1)
SHARED = frozenset({NO_KEY, REPLAYS})
"""The keys of jobs that have none."""


def shared_key(queue: str) -> UUID:
    """Return the key of a job that has none, by its queue."""
    return REPLAYS if queue == queues.REPLAY else NO_KEY


_UNREAD = unread_jobs.selection(
    "SELECT true FROM ingest.limited_jobs l WHERE l.job = j.id AND NOT l.claimed LIMIT 1"
)


def unread(connection: Connection, job_ids: Sequence[int]) -> list[UnreadJob]:
    """Return those of `job_ids` that wait, and are not in the line."""
    return unread_jobs.select(connection, _UNREAD, job_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The line of a processor, locked."""

    processor: str
    bounds: Bounds
    turn: int
    """Of the last that was started."""
    log: Log
    is_paused: bool
    is_broken: bool
    """Whether the processor's breaker is open: only its probe may start."""
    probe: int | None
    """That job; None: there is none."""


_LOCK = statement(
    f"""
    SELECT {limits.COLUMNS}, limits.turn, limits.starts_at, limits.starts,
           (SELECT paused_at FROM ingest.processors WHERE name = limits.processor) IS NOT NULL
               AS is_paused,
           broken.opened_at IS NOT NULL AS is_broken, broken.probe_job AS probe
    FROM ingest.limits
    LEFT JOIN LATERAL (
        SELECT opened_at, probe_job FROM ingest.breakers b
        WHERE b.processor = limits.processor AND opened_at IS NOT NULL LIMIT 1
    ) AS broken ON true
    WHERE limits.processor = :processor
    FOR UPDATE OF limits
    """
)


def lock(connection: Connection, processor: str) -> Line | None:
    """Return the line of a processor, locked until the transaction ends; None: it has no limits.

    Whoever has it locked alone starts jobs of the processor.
    """
    row = connection.execute(_LOCK, {"processor": processor}).one_or_none()
    if row is None:
        return None
    return Line(
        processor=row.processor,
        bounds=limits.in_force(row),
        turn=row.turn,
        log=list(zip(row.starts_at, row.starts, strict=True)),
        is_paused=row.is_paused,
        is_broken=row.is_broken,
        probe=row.probe,
    )


class Counted(NamedTuple):
    """What runs now."""

    running: int
    now: float
    """Unix time, by the server's clock."""


# Two kinds of keys are ready again: those whose time has come, and those of a job that has ended.
# The time of the statement is one that an index is searched by, unlike that of the clock.
# A key that no job waits of is kept only for its log.
_TIDY = statement(
    """
    WITH running AS MATERIALIZED (
        SELECT id FROM ingest.jobs WHERE lease_until IS NOT NULL AND processor = :processor
    ), ended AS (
        DELETE FROM ingest.limited_jobs
        WHERE processor = :processor AND claimed AND job <> ALL(ARRAY(SELECT id FROM running))
        RETURNING key
    ), come AS (
        UPDATE ingest.limited_keys
        SET held_until = NULL, turn = greatest(turn, CAST(:turn AS bigint) + 1)
        WHERE processor = :processor AND held_until <= statement_timestamp() AND waiting
    ), over AS (
        DELETE FROM ingest.limited_keys
        WHERE processor = :processor AND held_until <= statement_timestamp() AND NOT waiting
    ), freed AS (
        UPDATE ingest.limited_keys
        SET held_until = NULL, turn = greatest(turn, CAST(:turn AS bigint) + 1)
        WHERE processor = :processor AND key = ANY(ARRAY(SELECT key FROM ended))
          AND held_until = 'infinity'
    )
    SELECT (SELECT count(*) FROM running) AS running,
           CAST(extract(epoch FROM clock_timestamp()) AS float8) AS now
    """
)


def tidy(connection: Connection, line: Line) -> Counted:
    """Forget jobs that do not run any more, and let keys go on that may; count what runs."""
    parameters = {"processor": line.processor, "turn": line.turn}
    return Counted(*connection.execute(_TIDY, parameters).one())


# A row of a job that has run stays until the next `tidy`: the job may wait again by then. Nobody
# claims it meanwhile, since the line is locked. Its key may have waited for its end. A job that is
# in the line brings back its key, should that have been lost: nothing else would.
_ENTER = statement(
    """
    WITH entered AS (
        INSERT INTO ingest.limited_jobs (job, processor, key)
        SELECT r.job, :processor, r.key
        FROM unnest(CAST(:jobs AS bigint[]), CAST(:keys AS uuid[]))
             WITH ORDINALITY AS r (job, key, number)
        WHERE r.key IS NOT NULL
          AND (SELECT state IN ('pending', 'retrying') AND next_attempt_at <= clock_timestamp()
               FROM ingest.jobs WHERE id = r.job LIMIT 1)
        ORDER BY r.number
        ON CONFLICT (job) DO UPDATE SET claimed = false WHERE limited_jobs.claimed
        RETURNING job, key
    ), keys AS (
        INSERT INTO ingest.limited_keys AS known (processor, key, turn, waiting)
        SELECT :processor, key, CAST(:turn AS bigint) + 1, true FROM (
            SELECT key FROM entered
            UNION
            SELECT key FROM ingest.limited_jobs l
            WHERE job = ANY(CAST(:jobs AS bigint[])) AND NOT claimed
              AND (SELECT waiting FROM ingest.limited_keys k
                   WHERE k.processor = l.processor AND k.key = l.key LIMIT 1) IS NOT TRUE
        ) AS of_waiting
        ON CONFLICT (processor, key) DO UPDATE
        SET waiting = true, turn = greatest(known.turn, excluded.turn), held_until = NULL
        WHERE NOT known.waiting OR known.held_until = 'infinity' AND known.key = ANY(ARRAY(
            SELECT key FROM ingest.limited_jobs WHERE job = ANY(CAST(:jobs AS bigint[])) AND claimed
        ))
    )
    SELECT job FROM entered
    UNION
    SELECT job FROM ingest.limited_jobs WHERE job = ANY(CAST(:jobs AS bigint[])) AND NOT claimed
    """
)


def enter(
    connection: Connection, line: Line, entries: Sequence[tuple[int, UUID | None]]
) -> list[int]:
    """Put jobs that wait and are due into the line, each with its key; what is there, stays, and so
    does what has no key here: it was there, or did not wait, when keys were read.

    Return those of `entries` that wait in the line now.
    """
    waiting = connection.execute(
        _ENTER,
        {
            "processor": line.processor,
            "turn": line.turn,
            "jobs": arrays.literal(job for job, _ in entries),
            "keys": arrays.literal(key for _, key in entries),
        },
    )
    return list(waiting.scalars())


class Key(NamedTuple):
    """A key with waiting jobs."""

    key: UUID
    turn: int
    running: int
    log: Log


_KEY = """
    SELECT key, turn, (
        SELECT count(*) FROM ingest.limited_jobs l
        WHERE l.processor = :processor AND l.key = k.key AND l.claimed
    ) AS running, starts_at, starts
    FROM ingest.limited_keys k
"""
_READY = statement(
    f"""{_KEY}
    WHERE processor = :processor AND waiting AND held_until IS NULL
    ORDER BY turn, key LIMIT :limit
    """
)


def ready(connection: Connection, line: Line, *, limit: int) -> list[Key]:
    """Return the keys whose turn is next, of those not known to be at a limit of their own."""
    rows = connection.execute(_READY, {"processor": line.processor, "limit": limit})
    return [_key(row) for row in rows]


_OF_JOB = statement(
    f"""{_KEY}
    WHERE processor = :processor AND key = (
        SELECT key FROM ingest.limited_jobs WHERE job = :job AND NOT claimed
    )
    """
)


def key_of(connection: Connection, line: Line, job: int) -> Key | None:
    """Return the key of a job, ready or not; None: the job does not wait in the line."""
    row = connection.execute(_OF_JOB, {"processor": line.processor, "job": job}).one_or_none()
    return None if row is None else _key(row)


def _key(row: Row[Any]) -> Key:
    return Key(row.key, row.turn, row.running, list(zip(row.starts_at, row.starts, strict=True)))


class Candidate(NamedTuple):
    """The next job of a key, or one of the next."""

    key: UUID
    ref: JobRef
    is_due: bool
    """False: it waits for something else now, or does not wait."""


_NEXT = statement(
    """
    SELECT k.key, w.job, j.processor, j.queue, j.trigger, coalesce(j.is_due, false) AS is_due
    FROM unnest(CAST(:keys AS uuid[]), CAST(:numbers AS integer[]))
         WITH ORDINALITY AS k (key, most, number)
    CROSS JOIN LATERAL (
        SELECT job, place FROM ingest.limited_jobs
        WHERE processor = :processor AND key = k.key AND NOT claimed
        ORDER BY place LIMIT k.most
    ) AS w
    LEFT JOIN LATERAL (
        SELECT processor, queue, trigger,
               state IN ('pending', 'retrying') AND next_attempt_at <= clock_timestamp() AS is_due
        FROM ingest.jobs WHERE id = w.job LIMIT 1
    ) AS j ON true
    ORDER BY k.number, w.place
    """
)


def candidates(
    connection: Connection, line: Line, numbers: Sequence[tuple[UUID, int]]
) -> list[Candidate]:
    """Return so many of the next jobs of each key, those that came first first."""
    rows = connection.execute(
        _NEXT,
        {
            "processor": line.processor,
            "keys": arrays.literal(key for key, _ in numbers),
            "numbers": arrays.literal(number for _, number in numbers),
        },
    )
    return [
        Candidate(
            row.key,
            JobRef(
                id=row.job,
                processor=line.processor,
                queue=row.queue or "",
                trigger=row.trigger or "",
            ),
            row.is_due,
        )
        for row in rows
    ]


_MARK = statement(
    """
    WITH gone AS (
        DELETE FROM ingest.limited_jobs WHERE job = ANY(CAST(:gone AS bigint[]))
    )
    UPDATE ingest.limited_jobs SET claimed = true WHERE job = ANY(CAST(:started AS bigint[]))
    """
)


def mark(connection: Connection, started: Iterable[int], gone: Iterable[int]) -> None:
    """Note which jobs were started, and which have left the line."""
    parameters = {"started": arrays.literal(started), "gone": arrays.literal(gone)}
    connection.execute(_MARK, parameters)


class KeyState(NamedTuple):
    """A key as it is to be kept."""

    key: UUID
    turn: int
    held_until: float | None
    """Unix time from when it is ready; infinity: once a job of it ends; None: it is."""
    idle_until: float | None
    """Until when to keep its log if no job of it waits; None: not at all."""
    log: Log


_KEEP = statement(
    """
    WITH kept AS MATERIALIZED (
        SELECT k.*, (SELECT true FROM ingest.limited_jobs l
                     WHERE l.processor = :processor AND l.key = k.key AND NOT l.claimed
                     LIMIT 1) IS NOT NULL AS waiting
        FROM unnest(CAST(:keys AS uuid[]), CAST(:turns AS bigint[]), CAST(:held AS float8[]),
                    CAST(:idle AS float8[]), CAST(:starts_at AS text[]), CAST(:starts AS text[]))
             AS k (key, turn, held_until, idle_until, starts_at, starts)
    ), gone AS (
        DELETE FROM ingest.limited_keys
        WHERE processor = :processor AND key = ANY(ARRAY(
            SELECT key FROM kept WHERE NOT waiting AND idle_until IS NULL
        ))
    )
    INSERT INTO ingest.limited_keys (processor, key, turn, waiting, held_until, starts_at, starts)
    SELECT :processor, key, turn, waiting,
           to_timestamp(CASE WHEN waiting THEN held_until ELSE idle_until END),
           CAST(starts_at AS float8[]), CAST(starts AS integer[])
    FROM kept WHERE waiting OR idle_until IS NOT NULL
    ON CONFLICT (processor, key) DO UPDATE
    SET turn = excluded.turn, waiting = excluded.waiting, held_until = excluded.held_until,
        starts_at = excluded.starts_at, starts = excluded.starts
    """
)


def keep(connection: Connection, line: Line, keys: Sequence[KeyState]) -> None:
    """Keep keys as they are now, or forget them if no job of them waits and no log is needed."""
    connection.execute(
        _KEEP,
        {
            "processor": line.processor,
            "keys": arrays.literal(key.key for key in keys),
            "turns": arrays.literal(key.turn for key in keys),
            "held": arrays.literal(key.held_until for key in keys),
            "idle": arrays.literal(key.idle_until for key in keys),
            "starts_at": arrays.literal(arrays.literal(at for at, _ in key.log) for key in keys),
            "starts": arrays.literal(arrays.literal(count for _, count in key.log) for key in keys),
        },
    )


_ADVANCE = statement(
    """
    UPDATE ingest.limits
    SET turn = :turn, starts_at = CAST(:starts_at AS float8[]),
        starts = CAST(:starts AS integer[]), pulled_at = clock_timestamp()
    WHERE processor = :processor
    """
)


def advance(connection: Connection, line: Line, *, turn: int, log: Log) -> None:
    """Keep which turn is on, and what has started."""
    parameters: dict[str, Any] = {
        "processor": line.processor,
        "turn": turn,
        "starts_at": arrays.literal(at for at, _ in log),
        "starts": arrays.literal(count for _, count in log),
    }
    connection.execute(_ADVANCE, parameters)
