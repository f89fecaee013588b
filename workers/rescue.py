"""Jobs whose worker is gone: what becomes of them, and who may say so."""

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Engine

from ingest import telemetry
from ingest.store import jobs
from ingest.store.jobs import Failure, Held
from workers import outcome, recorder
from workers.backoff import Random, Rules
from workers.recorder import Wreck

log = telemetry.logger(__name__)

_OVER_THIS = "The worker process ended while it ran this job."
_OVER_ANOTHER = (
    "The worker process ended over another job of the batch; this attempt does not count."
)
_LEASE_ENDED = "The lease ended: its worker process stalled or its machine is gone."
_LEASE_ENDED_IN_BATCH = (
    "The lease ended while its worker held a batch; the next attempt runs apart, "
    "and this one does not count."
)


def after_wrecks(engine: Engine, folder: Path, rules: Rules, *, random: Random) -> int:
    """Record what dead processes of this machine held; returns how many jobs that were.

    Exact, unlike an ended lease: the flight record names the job that ran when its process died.
    """
    count = 0
    with recorder.wrecks(folder) as wrecks:
        for wreck in wrecks:
            failures = _after(engine, wreck, rules, random)
            wreck.clear()
            count += len(failures)
    return count


def _after(engine: Engine, wreck: Wreck, rules: Rules, random: Random) -> Sequence[Failure]:
    with engine.begin() as connection:
        failures = []
        for job in jobs.held_by(connection, wreck.worker):
            ran_it = wreck.running == Held(id=job.id, attempt=job.attempt)
            # What runs apart has no neighbour to blame, recorded or not.
            guilty = ran_it or (wreck.running is None and job.trigger == "rescue")
            why = _OVER_THIS if guilty else _OVER_ANOTHER
            failures.append(
                outcome.of_lost_worker(job, why, guilty=guilty, rules=rules, random=random)
            )
        jobs.fail(connection, failures)
    if failures:
        log.warning("worker_process_lost", jobs=len(failures))
    return failures


def after_leases(engine: Engine, rules: Rules, *, limit: int, random: Random) -> int:
    """Take back up to `limit` jobs whose lease has ended; returns how many.

    Nobody knows which job of a batch stalled its worker, so the first time none of them spends an
    attempt, and each runs apart from then on; a job that was running apart is to blame.
    """
    with engine.begin() as connection:
        failures = []
        for job in jobs.expired(connection, limit=limit):
            guilty = job.trigger == "rescue"
            why = _LEASE_ENDED if guilty else _LEASE_ENDED_IN_BATCH
            failures.append(
                outcome.of_lost_worker(job, why, guilty=guilty, rules=rules, random=random)
            )
        jobs.fail(connection, failures)
    if failures:
        log.warning("leases_ended", jobs=len(failures))
    return len(failures)
