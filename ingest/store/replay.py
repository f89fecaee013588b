"""Replay: an operator's re-run of jobs, of events without one, of deliveries that were rejected."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from ingest import queues
from ingest.errors import InvalidEnvelope
from ingest.sources.source import Source
from ingest.store import jobs
from ingest.store.selection import UNHANDLED, Selection, where

BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a replay touches."""

    jobs: int = 0
    """Put back to pending."""
    events: int = 0
    """Without the job in question: admitted again, which makes it."""
    running: int = 0
    """Jobs that run just now: left alone."""
    gone: int = 0
    """Jobs and events whose body was dropped: left alone, there is nothing to work on."""

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            jobs=self.jobs + other.jobs,
            events=self.events + other.events,
            running=self.running + other.running,
            gone=self.gone + other.gone,
        )

    @property
    def total(self) -> int:
        """Everything that is re-run."""
        return self.jobs + self.events


def count(connection: Connection, selection: Selection) -> Counts:
    """What `run` would touch now."""
    found = where(selection)
    parameters = found.parameters | _job_parameters(selection)
    row = connection.execute(
        text(
            f"""
            SELECT count(*) FILTER (WHERE jobs.state <> 'running' AND {_HAS_BODY}) AS jobs,
                   count(*) FILTER (WHERE jobs.state = 'running') AS running,
                   count(*) FILTER (WHERE jobs.state <> 'running' AND NOT {_HAS_BODY}) AS gone
            FROM jobs JOIN events ON events.id = jobs.event
            WHERE {found.sql} AND {_job_conditions(selection)}
            """
        ),
        parameters,
    ).one()
    counts = Counts(jobs=row.jobs, running=row.running, gone=row.gone)
    if _wants_events(selection):
        row = connection.execute(
            text(
                f"""
                SELECT count(*) FILTER (WHERE {_HAS_BODY}) AS events,
                       count(*) FILTER (WHERE NOT {_HAS_BODY}) AS gone
                FROM events WHERE {found.sql} AND {_lacks_job(selection)}
                """
            ),
            parameters,
        ).one()
        counts += Counts(events=row.events, gone=row.gone)
    return counts


def run(
    engine: Engine,
    selection: Selection,
    *,
    requested_by: str,
    reason: str | None,
    rate: float | None,
) -> Iterator[Counts]:
    """Put everything selected back to work, batch by batch; yields the counts so far.

    The jobs go through the replay queue, so that what is live does not wait behind them. With
    `rate` they fall due at that many a second. Who asked, when and why is kept with every
    attempt."""
    with engine.begin() as connection:
        replay = connection.execute(
            _BEGIN,
            {
                "requested_by": requested_by,
                "reason": reason,
                "selection": json.dumps(asdict(selection), default=str),
            },
        ).scalar_one()
    done = Counts()
    for step in (_put_back_jobs, _readmit_events):
        for counts in step(engine, selection, replay, rate, done.total):
            done += counts
            yield done
    with engine.begin() as connection:
        connection.execute(
            _END,
            {"id": replay, "jobs": done.jobs, "events": done.events, "running": done.running},
        )


def reopen(
    connection: Connection, sources: Mapping[str, Source], deliveries: Sequence[UUID]
) -> list[UUID]:
    """Open rejected deliveries again, from their raw bytes; returns those that are events now.

    They are admitted as if they had just come; those that still are no events stay as they are.
    """
    opened = []
    for row in connection.execute(_REJECTED, {"ids": list(deliveries)}):
        source = sources[row.source]
        try:
            name = source.name(source.open(row.body))
        except InvalidEnvelope:
            continue
        connection.execute(
            _ACCEPT,
            {
                "id": row.id,
                "event_id": name.event_id,
                "type": name.type,
                "fingerprint": name.fingerprint,
                "queue": queues.REPLAY,
            },
        )
        opened.append(row.id)
    return opened


def _put_back_jobs(
    engine: Engine, selection: Selection, replay: int, rate: float | None, done: int
) -> Iterator[Counts]:
    found = where(selection)
    page = text(
        f"""
        SELECT jobs.id FROM jobs JOIN events ON events.id = jobs.event
        WHERE {found.sql} AND {_job_conditions(selection)} AND {_HAS_BODY} AND jobs.id > :after
        ORDER BY jobs.id LIMIT {BATCH}
        FOR UPDATE OF jobs
        """
    )
    parameters = found.parameters | _job_parameters(selection)
    after = 0
    while True:
        with engine.begin() as connection:
            ids = list(connection.execute(page, parameters | {"after": after}).scalars())
            if not ids:
                return
            put_back = jobs.put_back(
                connection,
                ids,
                replay=replay,
                queue=queues.REPLAY,
                delays_s=_delays(ids, rate, done),
            )
        after = ids[-1]
        done += len(ids)
        yield Counts(jobs=len(put_back.job_ids), running=put_back.running)


def _readmit_events(
    engine: Engine, selection: Selection, replay: int, rate: float | None, done: int
) -> Iterator[Counts]:
    if not _wants_events(selection):
        return
    found = where(selection)
    page = text(
        f"""
        SELECT events.id FROM events
        WHERE {found.sql} AND {_lacks_job(selection)} AND {_HAS_BODY} AND events.id > :after
        ORDER BY events.id LIMIT {BATCH}
        """
    )
    parameters = found.parameters | {"processor": selection.processor}
    after = UUID(int=0)
    while True:
        with engine.begin() as connection:
            ids = list(connection.execute(page, parameters | {"after": after}).scalars())
            if not ids:
                return
            readmitted = connection.execute(
                _READMIT,
                {
                    "ids": ids,
                    "delays_s": _delays(ids, rate, done),
                    "replay": replay,
                    "queue": queues.REPLAY,
                    "processor": selection.processor,
                },
            ).rowcount
        after = ids[-1]
        done += len(ids)
        yield Counts(events=readmitted)


def _delays(ids: Sequence[object], rate: float | None, done: int) -> list[float]:
    return [(done + position) / rate if rate else 0.0 for position in range(len(ids))]


def _job_conditions(selection: Selection) -> str:
    conditions = []
    if selection.processor is not None:
        conditions.append("jobs.processor = :processor")
    if selection.state == UNHANDLED:
        conditions.append("false")
    elif selection.state is not None:
        conditions.append("jobs.state = :state")
    elif not selection.ids:
        conditions.append("jobs.state = 'dead'")
    return " AND ".join(conditions) or "true"


def _job_parameters(selection: Selection) -> dict[str, Any]:
    return {"processor": selection.processor, "state": selection.state}


def _wants_events(selection: Selection) -> bool:
    """Whether events that lack a job are meant too."""
    if selection.state is not None:
        return selection.state == UNHANDLED
    return bool(selection.ids) or selection.processor is None


def _lacks_job(selection: Selection) -> str:
    if selection.processor is None:
        return "events.id IN (SELECT event FROM unhandled)"
    return "NOT EXISTS (SELECT FROM jobs WHERE event = events.id AND processor = :processor)"


_BEGIN = text(
    """
    INSERT INTO replays (requested_by, reason, selection)
    VALUES (:requested_by, :reason, CAST(:selection AS jsonb))
    RETURNING id
    """
)

_END = text(
    """
    UPDATE replays
    SET jobs = :jobs, events = :events, running = :running, finished_at = now() WHERE id = :id
    """
)

_HAS_BODY = "EXISTS (SELECT FROM deliveries WHERE deliveries.id = events.id)"

# An event's own delivery, unadmitted again: admit makes the jobs that the event lacks. One that
# waits already for another processor's job gets those of all.
_READMIT = text(
    """
    INSERT INTO unadmitted (delivery, source, event_id, type, fingerprint, received_at, queue,
                            hint_at, processor, replay)
    SELECT e.id, e.source, e.event_id, e.type, e.fingerprint, e.received_at, :queue,
           now() + make_interval(secs => given.delay_s), :processor, :replay
    FROM unnest(CAST(:ids AS uuid[]), CAST(:delays_s AS float8[])) AS given (id, delay_s)
    JOIN events e USING (id)
    ON CONFLICT (delivery) DO UPDATE SET processor = NULL
    WHERE unadmitted.processor IS DISTINCT FROM EXCLUDED.processor
      AND unadmitted.processor IS NOT NULL
    """
)

_REJECTED = text(
    """
    SELECT id, source, body FROM deliveries
    WHERE id = ANY(CAST(:ids AS uuid[])) AND rejected IS NOT NULL
    ORDER BY id FOR UPDATE
    """
)

_ACCEPT = text(
    """
    WITH accepted AS (
        UPDATE deliveries SET rejected = NULL WHERE id = :id RETURNING id, source, received_at
    )
    INSERT INTO unadmitted (delivery, source, event_id, type, fingerprint, received_at, queue,
                            hint_at)
    SELECT id, source, :event_id, :type, :fingerprint, received_at, :queue, now() FROM accepted
    """
)
