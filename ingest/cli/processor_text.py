"""How `ingest processors show` tells of a processor."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime

from ingest.cli import output
from ingest.console.services.limits import ProcessorLimits
from ingest.console.services.processor_detail import ProcessorDetails
from ingest.console.services.ranges import Range
from ingest.durations import in_words
from ingest.store.pipeline.breakers import BreakerRecord
from ingest.store.pipeline.limit_waits import COUNTED
from ingest.store.pipeline.schedules import ScheduleRecord


def write(details: ProcessorDetails, period: Range, *, now: datetime) -> None:
    """Print all about a processor."""
    output.line(output.printable(details.name))
    if details.about:
        output.line(output.printable(details.about))
    output.table(None, ["", ""], _facts(details, period))
    failing = [
        (group.jobs, group.dead, f"{group.error_type}: {group.message or ''}", group.place)
        for group in details.failing
    ]
    if failing:
        output.table("Fails now", ["jobs", "dead", "error", "place"], failing, whole=["jobs"])
    actions = [
        (output.ago(action.at, now), action.by, action.action, action.reason)
        for action in details.actions
    ]
    if actions:
        output.table("What operators did", ["when", "who", "action", "reason"], actions)


def _facts(details: ProcessorDetails, period: Range) -> Iterator[tuple[str, str]]:
    work, figures = details.work, details.period
    least = "at least " if work.is_least else ""
    yield "state", _state(details)
    for group in work.parked:
        yield "parked", f"{output.number_of(group.jobs, 'job')} in {group.queue}: {group.why}"
    yield "types", ", ".join(details.types)
    yield "takes", _takes(details)
    yield "retries", _retries(details)
    if details.destination is not None:
        yield "forwards to", details.destination
    if details.ordered_by is not None:
        yield "order", f"by {details.ordered_by}; a dead letter: {details.on_dead}"
    if details.breaker is not None:
        yield from _breaker(details.breaker)
    if details.limits is not None:
        yield from limits(details.limits)
    if (schedule := details.schedule) is not None:
        overlap = "runs may overlap" if schedule.overlap else "runs do not overlap"
        yield "schedule", f"{schedule.expression} ({schedule.zone})"
        yield "rules", f"missed: {schedule.missed}; {overlap}"
        yield "next due", output.cell(schedule.next_due_at)
        yield "last due", output.cell(schedule.last_due_at)
        yield "last run", _last_run(schedule)
    yield "registered", output.cell(details.registered_at)
    for worker in details.workers:
        ago = "" if worker.alive else ", unresponsive"
        yield "worker", f"{worker.host}:{worker.pid}, version {worker.version}{ago}"
    yield "waiting", f"{least}{work.pending:,}, and {work.retrying:,} to be retried"
    due = "" if work.due_since is None else f", since {output.cell(work.due_since)}"
    yield "due", f"{least}{work.due:,}{due}"
    if details.ordered_by is not None:
        blocked = output.number_of(work.blocked_keys, "key")
        yield (
            "behind",
            f"{least}{work.behind:,} others of their key; {blocked} behind a dead letter",
        )
    yield "running", f"{least}{work.running:,}"
    yield "dead", f"{least}{work.dead:,}"
    yield f"last {period}", _did(details)
    if figures.p50_s is not None and figures.p95_s is not None:
        yield "a call", f"p50 {_span(figures.p50_s)}, p95 {_span(figures.p95_s)}"


def limits(seen: ProcessorLimits) -> Iterator[tuple[str, str]]:
    """Yield what is told of a processor's limits."""
    now = seen.in_force
    running = f"{seen.holding:,} now"
    yield "at once", f"{running} of {now.concurrency:,}" if now.concurrency else running
    if now.rate is not None:
        yield "rate", f"{now.rate}; {seen.started:,} started in the last window"
    if seen.limit_by is not None:
        of_key = [
            f"{now.key_concurrency:,} at once" if now.key_concurrency else None,
            now.key_rate,
        ]
        yield "shares", f"by {seen.limit_by}" + "".join(f"; {part}" for part in of_key if part)
    least = "at least " if seen.in_line >= COUNTED else ""
    yield "in line", f"{least}{seen.in_line:,}"
    if seen.set_by is not None:
        declared = ", ".join(
            f"{name}={value}" for name, value in asdict(seen.declared).items() if value is not None
        )
        when = output.cell(seen.set_at)
        yield "limits set", f"by {seen.set_by} at {when}; declared: {declared or 'none'}"


def _last_run(schedule: ScheduleRecord) -> str:
    if schedule.last_event is None:
        return "none"
    return f"{schedule.last_state or 'no longer stored'}, event {schedule.last_event}"


def _state(details: ProcessorDetails) -> str:
    if details.paused_at is not None:
        why = f": {details.pause_reason}" if details.pause_reason else ""
        return f"paused by {details.paused_by} since {output.cell(details.paused_at)}{why}"
    if details.breaker is not None and details.breaker.opened_at is not None:
        return "its target is down: the breaker is open, and only probes run"
    return "runs"


def _breaker(breaker: BreakerRecord) -> Iterator[tuple[str, str]]:
    failures = output.number_of(breaker.failures, "failure")
    opens = f"after {breaker.opens_after} in a row of {breaker.watches}"
    if breaker.opened_at is None:
        yield "breaker", f"closed; {failures} in a row, it opens {opens}"
    else:
        yield "breaker", f"open since {output.cell(breaker.opened_at)}, {opens}"
        yield (
            "probes",
            (
                f"{breaker.probes} by now, the next {output.cell(breaker.probe_at)}, then every"
                f" {_span(breaker.probe_every_s)}"
            ),
        )
    if breaker.error_type is not None:
        yield "last error", output.printable(f"{breaker.error_type}: {breaker.error_message or ''}")
    if breaker.closed_at is not None:
        by = "a probe" if breaker.closed_by is None else breaker.closed_by
        yield "last closed", f"{output.cell(breaker.closed_at)} by {by}"


def _takes(details: ProcessorDetails) -> str:
    events = "a list of events" if details.batch else "an event at a time"
    at_once = f", in up to {details.threads} transactions at once" if details.threads > 1 else ""
    return f"{events}{at_once}, from the queue {details.queue}"


def _retries(details: ProcessorDetails) -> str:
    attempts = output.number_of(details.max_attempts, "attempt")
    waits = ""
    if details.retry_base_s is not None and details.retry_max_delay_s is not None:
        first, longest = _span(details.retry_base_s), _span(details.retry_max_delay_s)
        waits = f"; waits up to {first}, doubling up to {longest}"
    return f"{attempts} of up to {_span(details.timeout_s)}{waits}"


def _did(details: ProcessorDetails) -> str:
    figures = details.period
    failed = output.number_of(figures.failures, "failed attempt")
    return f"{figures.succeeded:,} succeeded ({60 * figures.rate:,.1f} a minute), {failed}"


def _span(seconds: float) -> str:
    return in_words(seconds) if seconds >= 1 else f"{seconds * 1000:,.0f} ms"
