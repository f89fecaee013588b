"""What pages and API show of an event: read from the store, with what the viewer may not see
masked."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal
from uuid import UUID

from ingest.console.ui.json_view import pretty
from ingest.console.ui.masking import HIDDEN, mask_phones
from ingest.sources.registry import classes
from ingest.store.bulk.replay import Operation
from ingest.store.pipeline.processors import ProcessorRecord
from ingest.store.reports.audit_log import Action
from ingest.store.reports.event_detail import AttemptRecord, DeliveryRecord, EventHistory, JobRecord
from ingest.store.reports.failures import Failures
from ingest.store.reports.refused_requests import Refusal
from ingest.store.search.events import ListedEvent

BOUNDS: Mapping[str, int] = {"most": 50, "conflicts": 5}
"""How much of an event's history is read."""
_DIFF_LIMIT = 300
"""Lines of a body that are compared: it takes the square of it, at worst."""
_KINDS: dict[str, Literal["added", "removed"]] = {"+": "added", "-": "removed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """How a delivery proved where it came from."""

    key_id: str | None
    """Which secret matched; None: the delivery's day was dropped."""
    signed_at: datetime | None
    skew_s: float | None
    """How long before its receipt it was signed, by both clocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffLine:
    """A line of the difference of two bodies."""

    kind: Literal["added", "removed", "same"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryView:
    """One delivery of an event."""

    id: UUID
    received_at: datetime
    is_first: bool
    conflict: bool
    signature: Signature
    headers: tuple[tuple[str, str], ...] | None
    kept: bool
    """Whether its body is there, or was dropped when its day's retention ended."""
    body: str | None
    """As received: of the first, and of the first few that differ."""
    difference: tuple[DiffLine, ...]
    """From the first delivery's body, where it differs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventView:
    """An event, its deliveries (the first one first) and its jobs."""

    id: UUID
    source: str
    event_id: str
    type: str
    state: str
    received_at: datetime
    delivered: int
    """How often; `deliveries` are the first of them."""
    deliveries: tuple[DeliveryView, ...]
    jobs: tuple[JobRecord, ...]
    masked: bool
    """Whether bodies, messages of errors and phone numbers were left out."""


def of_event(event: EventHistory, *, masked: bool) -> EventView:
    """An event as it is shown."""
    first = event.deliveries[0]
    return EventView(
        id=event.id,
        source=event.source,
        event_id=mask_phones(event.event_id) if masked else event.event_id,
        type=mask_phones(event.type) if masked else event.type,
        state=event.state,
        received_at=event.received_at,
        delivered=event.delivered,
        deliveries=tuple(
            _delivery(each, first, event.source, masked=masked) for each in event.deliveries
        ),
        jobs=tuple(_masked_job(job) if masked else job for job in event.jobs),
        masked=masked,
    )


def of_listed(events: Sequence[ListedEvent], *, masked: bool) -> tuple[ListedEvent, ...]:
    """Events of a list as they are shown."""
    if not masked:
        return tuple(events)
    return tuple(
        replace(
            each,
            event_id=mask_phones(each.event_id),
            type=mask_phones(each.type),
            error=None if each.error is None else each.error.partition(":")[0],
        )
        for each in events
    )


def of_failures(found: Failures, *, masked: bool) -> Failures:
    """Groups of failures as they are shown."""
    if not masked:
        return found
    return replace(
        found,
        groups=tuple(
            replace(each, message=None if each.message is None else HIDDEN) for each in found.groups
        ),
    )


def of_operation(found: Operation, *, masked: bool) -> Operation:
    """A replay or discard as it is shown: without what an operator has searched for."""
    if not masked:
        return found
    selection = replace(
        found.selection,
        event_ids=tuple(mask_phones(each) for each in found.selection.event_ids),
        types=tuple(mask_phones(each) for each in found.selection.types),
        about=tuple((kind, HIDDEN) for kind, _ in found.selection.about),
        fields=tuple((path, HIDDEN) for path, _ in found.selection.fields),
        search=HIDDEN if found.selection.texts else None,
    )
    return replace(found, selection=selection, reason=_hidden(found.reason))


def of_action(found: Action, *, masked: bool) -> Action:
    """What an operator did, as it is shown. What a bulk action was of, may be what was searched
    for."""
    if not masked:
        return found
    target = HIDDEN if found.action in ("replay", "discard") else mask_phones(found.target)
    return replace(found, target=target, reason=_hidden(found.reason))


def of_processors(
    processors: Sequence[ProcessorRecord], *, masked: bool
) -> tuple[ProcessorRecord, ...]:
    """Return processors as they are shown: without why an operator paused them."""
    if not masked:
        return tuple(processors)
    return tuple(replace(each, pause_reason=_hidden(each.pause_reason)) for each in processors)


def of_refusals(refusals: Sequence[Refusal], *, masked: bool) -> tuple[Refusal, ...]:
    """Return refused requests as they are shown: their paths and headers can hold anything."""
    if not masked:
        return tuple(refusals)
    return tuple(
        replace(
            each,
            source=mask_phones(each.source),
            detail={name: mask_phones(value) for name, value in each.detail.items()},
        )
        for each in refusals
    )


def _hidden(text: str | None) -> str | None:
    return None if text is None else HIDDEN


def _delivery(
    each: DeliveryRecord, first: DeliveryRecord, source: str, *, masked: bool
) -> DeliveryView:
    body = None if each.body is None else each.body.decode("utf-8", "replace")
    headers = None
    if each.headers is not None:
        headers = tuple((str(name), str(value)) for name, value in each.headers)
    return DeliveryView(
        id=each.id,
        received_at=each.received_at,
        is_first=each.id == first.id,
        conflict=each.conflict,
        signature=_signature(each, headers, source),
        headers=headers,
        kept=each.kept,
        body=HIDDEN if masked and body is not None else body,
        difference=() if masked else _difference(first, each),
    )


def _signature(
    delivery: DeliveryRecord, headers: Sequence[tuple[str, str]] | None, slug: str
) -> Signature:
    source = classes().get(slug)
    signed_at = None if source is None else source.signed_at(dict(headers or ()))
    skew_s = None
    if signed_at is not None:
        skew_s = round((delivery.received_at - signed_at).total_seconds(), 3)
    return Signature(key_id=delivery.key_id, signed_at=signed_at, skew_s=skew_s)


def _difference(first: DeliveryRecord, other: DeliveryRecord) -> tuple[DiffLine, ...]:
    """The lines that differ, with their neighbours; of long bodies, the beginning."""
    if not other.conflict or first.body is None or other.body is None:
        return ()
    before, after = (
        pretty(body.decode("utf-8", "replace")).splitlines()[:_DIFF_LIMIT]
        for body in (first.body, other.body)
    )
    lines = list(difflib.unified_diff(before, after, lineterm=""))[2:]  # after the file names
    return tuple(
        DiffLine(kind=_KINDS.get(line[:1], "same"), text="…" if line[:2] == "@@" else line[1:])
        for line in lines
    )


def _masked_job(job: JobRecord) -> JobRecord:
    return replace(job, attempts=tuple(_masked_attempt(each) for each in job.attempts))


def _masked_attempt(attempt: AttemptRecord) -> AttemptRecord:
    """Without what an error may quote."""
    return replace(
        attempt,
        error_message=_hidden(attempt.error_message),
        traceback=_hidden(attempt.traceback),
        replay_reason=_hidden(attempt.replay_reason),
    )
