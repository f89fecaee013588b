"""Every metric: its name, kind, labels and meaning. `docs/metrics.md` is written from this.

A label has few values, and all of them are ours: slugs of configured sources, ids of configured
keys, names of registered processors, reason slugs. What a stranger sends never becomes one.
"""

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Kind(enum.StrEnum):
    """How a metric behaves."""

    COUNTER = "counter"
    """Grows, from zero at the start of its process."""
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Metric(NamedTuple):
    """A metric that a process serves."""

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()


def _counter(name: str, meaning: str, *labels: str) -> Metric:
    return Metric(f"ingest_{name}_total", Kind.COUNTER, meaning, labels)


def _gauge(name: str, meaning: str, *labels: str) -> Metric:
    return Metric(f"ingest_{name}", Kind.GAUGE, meaning, labels)


def _histogram(name: str, meaning: str, *labels: str) -> Metric:
    return Metric(f"ingest_{name}", Kind.HISTOGRAM, meaning, labels)


BUILD = _gauge(
    "build_info", "1, with the kind of the process and its version", "process", "version"
)
DISPATCHES = _counter("dispatches", "messages that Redis confirmed")
DISPATCH_FAILURES = _counter(
    "dispatch_failures", "messages that Redis did not confirm; the relay finds the work"
)

ANSWERS = _counter(
    "answers",
    "answers to requests; the source is empty if none has the address",
    "source",
    "status",
)
ANSWER_DURATION = _histogram(
    "answer_duration_seconds", "from a request's head to its answer, where it was stored", "source"
)
REFUSALS = _counter("refusals", "requests that were not answered 200", "source", "reason")
DELIVERIES = _counter(
    "deliveries", "deliveries that were stored, by the live key that signed them", "source", "key"
)
KEY_LAST_USED = _gauge(
    "key_last_used_timestamp_seconds",
    "when a live key was last seen to sign, Unix time; 0: not since this process started;"
    " `rank` is `newest` or `older`",
    "source",
    "key",
    "rank",
)
POSSIBLE_LOSSES = _counter(
    "possible_losses",
    "requests with a verified signature that were answered 5xx, and whose sender does not send them"
    " again",
    "source",
)
CLOCK_SKEW = _gauge(
    "clock_skew_seconds",
    "our clock less the signature's time, of the last delivery of a quarter of an hour; only of"
    " sources that keep that time",
    "source",
)
COMMIT_DURATION = _histogram("commit_duration_seconds", "a group commit")
COMMIT_DELIVERIES = _histogram("commit_deliveries", "deliveries in a group commit")
COMMIT_FAILURES = _counter("commit_failures", "group commits that failed, or are in doubt")
WAITING_DELIVERIES = _gauge("waiting_deliveries", "deliveries in memory that wait for a commit")
WAITING_BYTES = _gauge("waiting_bytes", "their bytes")
STORAGE_UP = _gauge("storage_up", "1: deliveries can be stored; 0: they are answered 503")

ATTEMPTS = _counter(
    "attempts", "attempts that ended in this worker, by outcome", "processor", "outcome"
)
ATTEMPT_DURATION = _histogram(
    "attempt_duration_seconds", "the processor's call, where it succeeded", "processor"
)
LAG = _histogram(
    "lag_seconds", "from a delivery's receipt to its job's success; without replays", "processor"
)
JOBS_DEAD = _counter("jobs_dead", "jobs that became dead letters in this worker", "processor")
DUPLICATES = _counter("duplicates", "deliveries of events that were known")
CONFLICTS = _counter("conflicts", "duplicates whose content differs from the first delivery's")
TASKS = _counter("tasks", "messages that were worked on")
TASK_FAILURES = _counter("task_failures", "messages that were given up, most likely by PostgreSQL")
CRASHED_JOBS = _counter("crashed_jobs", "jobs that a process of this machine held when it died")

SWEEPS = _counter("relay_sweeps", "sweeps, by `result`: `ok` or `failed`", "result")
SWEEP_DURATION = _histogram("relay_sweep_duration_seconds", "a sweep")
LAST_SWEEP = _gauge(
    "relay_last_sweep_timestamp_seconds", "when the last good sweep ended, Unix time"
)
RELAY_DISPATCHED = _counter(
    "relay_dispatched", "work that nobody held, by `kind`: `deliveries` or `jobs`", "kind"
)
RELAY_RESCUED = _counter("relay_rescued_jobs", "jobs whose lease had ended")
BACKLOG = _gauge("backlog_events", "deliveries that no worker has admitted, without replays")
BACKLOG_AGE = _gauge("backlog_age_seconds", "the age of the oldest of them; 0: there is none")
WAITING_JOBS = _gauge(
    "waiting_jobs",
    "jobs that wait, by `state`: `pending` or `retrying`; without parked ones",
    "processor",
    "queue",
    "state",
)
RUNNING_JOBS = _gauge("running_jobs", "jobs that run", "processor", "queue")
OLDEST_JOB_AGE = _gauge(
    "oldest_job_age_seconds",
    "since the receipt of the oldest event with a job that waits or runs; without replays and"
    " parked jobs",
    "processor",
    "queue",
)
PARKED_JOBS = _gauge(
    "parked_jobs",
    "jobs that no worker may or can take, by `reason`: `paused`, `breaker_open`, `unknown`,"
    " `unconsumed`",
    "processor",
    "queue",
    "reason",
)
DEAD_LETTERS = _gauge("dead_letters", "jobs in `dead` that nobody has discarded", "processor")
EVENTS = _gauge("events", "events in the ledger")
UNHANDLED = _gauge("unhandled_events", "events without a job")
PROCESSES = _gauge("processes", "processes that are alive, by their own reports", "process")
PARTITION_DAYS = _gauge("partition_days_ahead", "days after today that have a partition")
MEASURED_AT = _gauge(
    "measured_timestamp_seconds",
    "when the relay last measured the state of the tables, Unix time; 0: not yet",
)
MEASURE_DURATION = _gauge("measure_duration_seconds", "how long that took")

RETENTION_REMOVED = _counter(
    "retention_removed_rows", "rows that this relay has removed because of their age", "kind"
)
RETENTION_ENDED = _gauge(
    "retention_last_pass_timestamp_seconds",
    "when this relay's last pass over what is too old reached its end, Unix time; 0: not yet",
)
RETENTION_BEHIND = _gauge(
    "retention_behind_seconds",
    "for so long the oldest row that is past its age should have been gone; 0: there is none; only"
    " of kinds with an age",
    "kind",
)

POOL_WAIT = _histogram("pool_wait_seconds", "the wait of a request for a connection to PostgreSQL")

OF_EVERY_PROCESS = (
    _counter("process_cpu_seconds", "CPU time, user and system; of a worker: its parent's"),
    _gauge("process_resident_memory_bytes", "resident memory, likewise"),
    _gauge("process_virtual_memory_bytes", "virtual memory"),
    _gauge("process_start_time_seconds", "when it started, Unix time"),
    _gauge("process_open_fds", "open file descriptors"),
    _gauge("process_max_fds", "how many it may open"),
)
"""What the client library tells of a process."""

BY_PROCESS: Mapping[str, tuple[Metric, ...]] = MappingProxyType(
    {
        "receiver": (
            *(ANSWERS, ANSWER_DURATION, REFUSALS, DELIVERIES, KEY_LAST_USED, CLOCK_SKEW),
            *(POSSIBLE_LOSSES, COMMIT_DURATION, COMMIT_DELIVERIES, COMMIT_FAILURES),
            *(WAITING_DELIVERIES, WAITING_BYTES, STORAGE_UP, DISPATCHES, DISPATCH_FAILURES, BUILD),
        ),
        "worker": (
            *(ATTEMPTS, ATTEMPT_DURATION, LAG, JOBS_DEAD, DUPLICATES, CONFLICTS),
            *(TASKS, TASK_FAILURES, CRASHED_JOBS, DISPATCHES, DISPATCH_FAILURES, BUILD),
        ),
        "relay": (
            *(SWEEPS, SWEEP_DURATION, LAST_SWEEP, RELAY_DISPATCHED, RELAY_RESCUED),
            *(BACKLOG, BACKLOG_AGE, WAITING_JOBS, RUNNING_JOBS, OLDEST_JOB_AGE, PARKED_JOBS),
            *(DEAD_LETTERS, EVENTS, UNHANDLED, PROCESSES, PARTITION_DAYS),
            *(RETENTION_REMOVED, RETENTION_ENDED, RETENTION_BEHIND),
            *(MEASURED_AT, MEASURE_DURATION, DISPATCHES, DISPATCH_FAILURES, BUILD),
        ),
        "console": (POOL_WAIT, BUILD),
    }
)
"""What each kind of process serves beside that."""
