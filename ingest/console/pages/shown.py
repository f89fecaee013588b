"""What the templates are given, made from what the store returned."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

from ingest.console.services.event_view import EventView
from ingest.console.services.overview import Overview, Spell
from ingest.console.ui.charts import Series, bars, lines
from ingest.console.ui.formats import size
from ingest.console.ui.json_view import pretty
from ingest.query import spell
from ingest.store.bulk.replay import DISCARD, REPLAY, Operation
from ingest.store.pipeline.metrics import Histogram, describe_unreadable
from ingest.store.reports.audit_log import Action
from ingest.store.reports.event_detail import JobRecord
from ingest.store.reports.failures import FailureGroup
from ingest.store.reports.refused_requests import Refusal
from ingest.store.search.counts import Count
from ingest.store.search.filters import EVENT_STATES, EventFilter

SHOWN_BYTES = 256 * 1024
"""Of a body; the API has all of it."""
_SHOWN_IDS = 5


def address(path: str, **parameters: object) -> str:
    """A path with the parameters that are not empty."""
    given = {name: str(value) for name, value in parameters.items() if value not in (None, "")}
    return f"{path}?{urlencode(given, quote_via=quote)}" if given else path


def events_of(**conditions: Any) -> str:
    """The address of the events that meet some conditions of a EventFilter."""
    return address("/events", q=spell(EventFilter(**conditions)))


def totals(found: Overview) -> dict[str, int]:
    """The sums over the range."""
    sums = {
        name: sum(getattr(each, name) for each in found.spells)
        for name in ("accepted", "duplicates", "rejected", "failed", "succeeded")
    }
    return {**sums, "processed": sums["succeeded"]}


def current(found: Overview) -> dict[str, Any]:
    """How much waits, and how long already."""
    oldest = min(filter(None, (found.oldest_job, found.oldest_unadmitted)), default=None)
    return {
        "dead": sum(each.dead for each in found.processors),
        "waiting": found.stats.jobs.pending + found.stats.jobs.retrying,
        "running": found.stats.jobs.running,
        "oldest_s": None if oldest is None else max(0.0, (found.now - oldest).total_seconds()),
    }


def unreadable(found: Overview) -> str | None:
    """What the read model could not read, in a sentence; None: it read everything."""
    if not found.unreadable:
        return None
    return describe_unreadable(found.unreadable, f"in the last {found.range}")


def drawn(found: Overview) -> dict[str, Any]:
    """The overview's charts."""
    times = [each.begins for each in found.spells]
    span = timedelta(seconds=found.span_s)

    def series(name: str, tone: str, value: Callable[[Spell], float | None]) -> Series:
        return Series(name=name, tone=tone, values=[value(each) for each in found.spells])

    return {
        "deliveries": bars(
            [
                series("events", "accepted", lambda each: each.accepted - each.duplicates),
                series("duplicates", "duplicates", lambda each: each.duplicates),
                series("rejected", "rejected", lambda each: each.rejected),
            ],
            times,
            span=span,
            unit="deliveries",
            label="Deliveries over time",
        ),
        "attempts": bars(
            [
                series("succeeded", "succeeded", lambda each: each.succeeded),
                series("failed", "failed", lambda each: each.failed),
            ],
            times,
            span=span,
            unit="attempts",
            label="Attempts over time",
        ),
        "lag": lines(
            [
                series("p50", "p50", lambda each: each.lag_p50_s),
                series("p95", "p95", lambda each: each.lag_p95_s),
            ],
            times,
            span=span,
            label="Time from receipt to success",
        ),
        "answers": lines(
            [
                series("p50", "p50", lambda each: each.answer_p50_s),
                series("p95", "p95", lambda each: each.answer_p95_s),
            ],
            times,
            span=span,
            label="Time that answers took",
        ),
    }


def dead_letters(found: Overview) -> list[dict[str, Any]]:
    """Processors with dead letters, the most first."""
    return [
        {
            "processor": each.name,
            "count": each.dead,
            "href": events_of(state="dead", processor=each.name),
        }
        for each in sorted(found.processors, key=lambda each: -each.dead)
        if each.dead
    ]


def services(found: Overview) -> list[dict[str, Any]]:
    """PostgreSQL and Redis, as they answer."""
    database, redis = found.database, found.redis
    waiting = sum(redis.waiting.values())
    return [
        {
            "name": "PostgreSQL",
            "ok": True,
            "text": f"{database.version.split()[0]}, {size(database.size_bytes)}, "
            f"{database.connections} of {database.max_connections} connections",
        },
        {
            "name": "Redis",
            "ok": redis.version is not None,
            "text": "does not answer: work is found a second later"
            if redis.version is None
            else f"{redis.version}, {waiting} messages waiting",
        },
    ]


def chips(selection: EventFilter) -> list[dict[str, Any]]:
    """The states, each with the rest of the search kept."""
    return [
        {
            "label": state or "all",
            "href": address("/events", q=spell(replace(selection, state=state))),
            "active": selection.state == state,
            "count": None,
            "state": state,
        }
        for state in (None, *EVENT_STATES)
    ]


def bulk(selection: EventFilter) -> dict[str, str]:
    """Which of the matching events are replayed or discarded: all, or what failed of them."""
    if not selection.means_what_failed:
        return {REPLAY: "all", DISCARD: "all"}
    both = "all dead and unhandled" if selection.processor is None else "all dead"
    return {REPLAY: both, DISCARD: "all dead"}


def counted(count: Count) -> dict[str, Any]:
    """A count as the list tells it."""
    return {"value": count.number, "kind": count.kind.replace(" ", "_")}


def body(event: EventView) -> dict[str, Any] | None:
    """The first body, pretty and raw."""
    body = event.deliveries[0].body
    if body is None:
        return None
    shown = body[:SHOWN_BYTES]
    laid_out = None if event.masked else pretty(shown)
    return {
        "pretty": laid_out if laid_out != shown or shown[:1] in "{[" else None,
        "raw": shown,
        "size": len(body.encode()),
        "cut": len(shown) < len(body),
    }


def job(job: JobRecord) -> dict[str, Any]:
    """A job with how long its attempts took."""
    return {
        **asdict(job),
        "attempts": [
            {
                **asdict(each),
                "took_s": None
                if each.finished_at is None
                else (each.finished_at - each.started_at).total_seconds(),
            }
            for each in job.attempts
        ],
    }


def failing(group: FailureGroup) -> dict[str, Any]:
    """A group of failures, and the search that finds it."""
    selection = EventFilter(
        processor=group.processor, error_type=group.error_type, raised_at=group.raised_at or ""
    )
    return {
        "processor": group.processor,
        "error_type": group.error_type,
        "error_message": group.message,
        "raised_at": group.raised_at,
        "count": group.jobs,
        "dead": group.dead,
        "retrying": group.jobs - group.dead,
        "first_at": group.first_seen,
        "last_at": group.last_seen,
        "trend": group.trend,
        "example_id": group.example,
        "q": spell(selection),
    }


def refused(samples: Sequence[Refusal], counts: Mapping[str, Histogram]) -> list[dict[str, Any]]:
    """Refused requests by reason, with the newest sample."""
    newest: dict[str, Refusal] = {}
    for each in samples:
        newest.setdefault(each.reason, each)
    return [
        {
            "reason": each.reason,
            "text": None,
            "count": counts.get(each.reason, Histogram()).total,
            "last_at": each.at,
            "source": each.source,
            "client": each.client,
            "detail": each.detail,
        }
        for each in newest.values()
    ]


def action(each: Action, operations: Mapping[int, Operation]) -> dict[str, Any]:
    """An action with what came of it."""
    found = operations.get(each.replay) if each.replay is not None else None
    return {
        "at": each.at,
        "by": each.by,
        "action": each.action,
        "target": each.target,
        "reason": each.reason,
        "href": None,
        "operation_id": each.replay,
        "status": found.status if found else None,
        "done": found.counts.total if found else None,
        "total": found.total if found else None,
    }


def operation(found: Operation, *, now: datetime) -> dict[str, Any]:
    """A replay or discard, and how fast it goes."""
    ends = found.finished_at or now
    took_s = (ends - found.requested_at).total_seconds()
    speed = found.counts.total / took_s if took_s > 0 and found.counts.total else None
    left = None if found.total is None else max(0, found.total - found.counts.total)
    return {
        "id": found.id,
        "action": found.action,
        "status": found.status,
        "requested_by": found.requested_by,
        "requested_at": found.requested_at,
        "finished_at": found.finished_at,
        "reason": found.reason,
        "rate": found.rate,
        "background": found.background,
        "done": found.counts.total,
        "total": found.total,
        "left_alone": found.counts.running,
        "problem": found.problem,
        "speed": speed,
        "remaining_s": left / speed if speed and left is not None else None,
    }


def pairs(selection: EventFilter) -> list[tuple[str, str]]:
    """A selection as people read it."""
    if selection.ids:
        shown = ", ".join(str(each) for each in selection.ids[:_SHOWN_IDS])
        more = len(selection.ids) - _SHOWN_IDS
        pairs = [("events", shown + (f" and {more} more" if more > 0 else ""))]
        return pairs + ([("processor", selection.processor)] if selection.processor else [])
    return [("search", spell(selection))] if spell(selection) else []
