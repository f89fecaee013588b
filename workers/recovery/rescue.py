"""Jobs whose worker is gone: what becomes of them, and who may say so."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sqlalchemy import Engine

from ingest import logs
from ingest.sentry.start import Reports
from ingest.store.pipeline import jobs
from ingest.store.pipeline.jobs import Failure, Lease
from workers import outcome
from workers.recovery import crash_record
from workers.recovery.crash_record import CrashRecord
from workers.retry import Random, RetryPolicy

log = logs.logger(__name__)

_OVER_THIS = "The worker process ended while it ran this job."
_OVER_ANOTHER = (
    "The worker process ended over another job of the batch; this attempt does not count."
)
_LEASE_ENDED = "The lease ended: its worker process stalled or its machine is gone."
_LEASE_ENDED_IN_BATCH = (
    "The lease ended while its worker held a batch; the next attempt runs apart, "
    "and this one does not count."
)


def recover_crashed(
    engine: Engine,
    folder: Path,
    rules: RetryPolicy,
    *,
    random: Random,
    reports: Reports | None = None,
) -> int:
    """Record what dead processes of this machine held; returns how many jobs that were.

    Exact, unlike an ended lease: the flight record names the job that ran when its process died.
    """
    count = 0
    with crash_record.crash_records(folder) as crash_records:
        for wreck in crash_records:
            failures = _after(engine, wreck, rules, random)
            wreck.clear()
            if reports is not None:
                reports.dead(engine, failures)
            count += len(failures)
    return count


def _after(
    engine: Engine, wreck: CrashRecord, rules: RetryPolicy, random: Random
) -> Sequence[Failure]:
    with engine.begin() as connection:
        failures = []
        is_waited_for = wreck.running is not None and jobs.claim_for_the_lost(
            connection, wreck.running, worker=wreck.worker
        )
        for job in jobs.held_by(connection, wreck.worker):
            ran_it = wreck.running == Lease(id=job.id, attempt=job.attempt)
            # What runs apart has no neighbour to blame, recorded or not.
            blamed = ran_it or (wreck.running is None and job.trigger == "rescue")
            why = _OVER_THIS if blamed else _OVER_ANOTHER
            failure = outcome.of_lost_worker(job, why, blamed=blamed, rules=rules, random=random)
            if ran_it and is_waited_for and failure.retry_in_s is not None:
                failure = replace(failure, retry_in_s=0.0)
            failures.append(failure)
        jobs.fail(connection, failures)
    if failures:
        log.warning("worker_process_lost", jobs=len(failures))
    return failures


def recover_expired(
    engine: Engine,
    rules: RetryPolicy,
    *,
    limit: int,
    random: Random,
    reports: Reports | None = None,
) -> int:
    """Take back up to `limit` jobs whose lease has ended; returns how many.

    Nobody knows which job of a batch stalled its worker, so the first time none of them spends an
    attempt, and each runs apart from then on; a job that was running apart is to blame.
    """
    with engine.begin() as connection:
        failures = []
        for job in jobs.expired(connection, limit=limit):
            blamed = job.trigger == "rescue"
            why = _LEASE_ENDED if blamed else _LEASE_ENDED_IN_BATCH
            failures.append(
                outcome.of_lost_worker(job, why, blamed=blamed, rules=rules, random=random)
            )
        jobs.fail(connection, failures)
    if reports is not None:
        reports.dead(engine, failures)
    if failures:
        log.warning("leases_ended", jobs=len(failures))
    return len(failures)
