"""Which processes are alive, and whether each queue has a worker."""

from collections.abc import Iterator

from ingest import __version__, queues
from ingest.alerts.catalogue import NO_PROCESS
from ingest.doctor.findings import Finding, error, listed, note, warning
from ingest.doctor.setup import Setup
from ingest.store.pipeline import jobs, processors
from ingest.store.reports import heartbeats
from ingest.store.reports.heartbeats import ProcessRecord

NOT_ALIVE = {
    "receiver": error("no_receiver", "Start `ingest serve`."),
    "worker": error("no_worker", "Start `ingest worker`."),
    "relay": error("no_relay", "Start `ingest relay`."),
}
QUEUE_UNCONSUMED = error(
    "queue_unconsumed",
    "Start a worker for the queue (`ingest worker --queues …`, INGEST_WORKER_PROCESSES).",
)
JOBS_PARKED = error(
    "jobs_parked",
    "Start a worker that has the processor and takes the queue. The jobs then run by themselves.",
)
PROCESSOR_PAUSED = warning("processor_paused", "Resume it on the console's page of processors.")
BREAKER_OPEN = warning(
    "breaker_open",
    "Look what the processor calls; the jobs run by themselves once a probe succeeds.",
)
_PARKED = {"paused": PROCESSOR_PAUSED, "breaker_open": BREAKER_OPEN}
"""By the reason; for the others a worker is missing."""
VERSIONS_DIFFER = warning("versions_differ", "Finish the deploy: docs/upgrading.md.")
PROCESSES = note("processes")


def alive(setup: Setup) -> Iterator[Finding]:
    """Look for the kinds of processes that are needed, by their heartbeats."""
    with setup.connected() as connection:
        processes = [process for process in heartbeats.all_of_them(connection) if process.alive]
    kinds = [process.kind for process in processes]
    for kind, finding in NOT_ALIVE.items():
        if kind not in kinds:
            yield finding.found(NO_PROCESS[kind].fired)
    if kinds:
        counts = [f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)]
        yield PROCESSES.found(f"Alive: {listed(counts)}.")
    yield from _other_versions(processes)


def _other_versions(processes: list[ProcessRecord]) -> Iterator[Finding]:
    others = sorted({process.version for process in processes} - {__version__})
    if others:
        yield VERSIONS_DIFFER.found(
            f"Processes of version {listed(others)} run; this is {__version__}."
        )


def consumed(setup: Setup) -> Iterator[Finding]:
    """Look for queues that no worker takes, and for jobs that no worker can take."""
    with setup.connected() as connection:
        served = heartbeats.served(connection)
        queue_of = processors.present_queues(connection)
        parked = jobs.parked(connection)
    if served is not None:
        yield from _unconsumed(served, queue_of)
    for lane in parked:
        kind = _PARKED.get(lane.reason, JOBS_PARKED)
        yield kind.found(
            f"{lane.jobs:,} jobs of {lane.processor} in the queue {lane.queue} are parked:"
            f" {lane.why}."
        )


def _unconsumed(served: frozenset[tuple[str, str]], queue_of: dict[str, str]) -> Iterator[Finding]:
    """Yield the queues that no worker takes; `served` are pairs of processor and queue.

    A processor that no worker has is no reason: its code may be gone.
    """
    present = {processor for processor, _ in served}
    users: dict[str, list[str]] = {queues.LIVE: [], queues.REPLAY: []}
    for processor, queue in sorted(queue_of.items()):
        if processor in present:
            users.setdefault(queue, []).append(processor)
    for queue in sorted(users.keys() - {queue for _, queue in served}):
        of_whom = f", which {listed(users[queue])} uses" if users[queue] else ""
        yield QUEUE_UNCONSUMED.found(f"No worker consumes the queue {queue}{of_whom}.")
