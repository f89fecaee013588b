"""What was refused and what was rejected, as the console, the API and the commands tell it."""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from uuid import UUID

from sqlalchemy import Connection

from ingest import ids
from ingest.errors import IngestError, NotFound
from ingest.refusals import causes
from ingest.refusals.causes import Facts, LikelyCause
from ingest.sources.base import Source
from ingest.store.reports import key_use, refusal_counts, refused_requests, rejected
from ingest.store.reports.refusal_counts import (
    AddressTotal,
    Key,
    ReasonTotal,
    RefusalFilter,
    RefusedRequests,
)
from ingest.store.reports.refused_requests import Refusal
from ingest.store.reports.rejected import RejectedDelivery, RejectedFilter, RejectedTotal

Show = Callable[[Sequence[Refusal]], Sequence[Refusal]]
"""Returns samples as they are shown to somebody; causes are made of these."""

GROUPS = 50
"""Reasons and addresses of a summary, at most."""
_SENTENCES_OF = timedelta(days=7)
_LOOKED_UP = 20


class BadPlace(IngestError):
    """A text names no place in the list of refused requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonGroup:
    """The requests of a source that were refused for one reason."""

    total: ReasonTotal
    cause: LikelyCause
    sample: Refusal | None
    """The newest that was looked at step by step; None: none is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedGroup:
    """The rejected deliveries of a source for one reason."""

    total: RejectedTotal
    cause: LikelyCause


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalSummary:
    """Why requests were refused and deliveries rejected in a period, and where they came from."""

    since: datetime
    until: datetime
    reasons: tuple[ReasonGroup, ...]
    """The most requests first, 50 at most."""
    addresses: tuple[AddressTotal, ...]
    """The most requests first, 50 at most."""
    rejected: tuple[RejectedGroup, ...]
    """The most deliveries first, of the newest, 5,000 at most. Where the filter names an address:
    none, since a delivery is kept without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalPage:
    """A part of the list of refused requests, the newest first."""

    refusals: tuple[RefusedRequests, ...]
    older: str | None
    """What to give as `before` for the next page; None: this is the last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRejected:
    """A rejected delivery, and what its sender was told."""

    id: UUID
    source: str
    received_at: datetime
    rejected: str
    """Why: the reason's slug."""
    size: int
    """Bytes of its body."""
    part_of: UUID | None
    """The delivery that it is an element of; None: it is a whole one."""
    status: int
    """What the sender was answered. 200: only this element was rejected, and it was not told."""
    sentence: str | None
    """What the sender was told; None: nothing, or it is not known any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedListing:
    """A part of the list of rejected deliveries, the newest first."""

    deliveries: tuple[ListedRejected, ...]
    older: UUID | None
    """What to give as `before` for the next page; None: this is the last one. A page may be short,
    or empty, and have a next one: 5,000 at most are looked at for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalOfRequest:
    """What became of a request that its sender names by the id in its answer."""

    request: UUID
    at: datetime
    """When it came: its id says so."""
    is_certain: bool
    """Whether the request is the last of the first row; otherwise it is one of the rows."""
    reasons: tuple[ReasonGroup, ...]
    """For each of the rows, its reason with the likely cause."""
    refusals: tuple[RefusedRequests, ...]
    """Rows of refused requests of that time, the likeliest first."""


def summary(
    connection: Connection,
    wanted: RefusalFilter,
    sources: Mapping[str, Source],
    *,
    now: datetime,
    show: Show = tuple,
) -> RefusalSummary:
    """Return what was refused and rejected, by reason and by address, with the likely causes."""
    return RefusalSummary(
        since=wanted.since,
        until=wanted.until,
        reasons=reasons(connection, wanted, sources, now=now, show=show),
        addresses=addresses(connection, wanted),
        rejected=rejected_groups(connection, wanted),
    )


def reasons(
    connection: Connection,
    wanted: RefusalFilter,
    sources: Mapping[str, Source],
    *,
    now: datetime,
    show: Show = tuple,
) -> tuple[ReasonGroup, ...]:
    """Return what was refused by reason, with the likely causes: the most requests first."""
    totals = refusal_counts.by_reason(connection, wanted, limit=GROUPS)
    return tuple(_with_causes(connection, totals, sources, now=now, show=show))


def addresses(connection: Connection, wanted: RefusalFilter) -> tuple[AddressTotal, ...]:
    """Return what was refused by address: the most requests first."""
    return tuple(refusal_counts.by_address(connection, wanted, limit=GROUPS))


def rejected_groups(connection: Connection, wanted: RefusalFilter) -> tuple[RejectedGroup, ...]:
    """Return what was rejected by reason, with the likely causes: the most deliveries first."""
    if wanted.client:
        return ()
    return tuple(
        RejectedGroup(total=total, cause=causes.of_rejected(total.source))
        for total in rejected.by_reason(connection, of_rejected(wanted))
    )


def page(
    connection: Connection, wanted: RefusalFilter, *, limit: int, before: str | None = None
) -> RefusalPage:
    """Return a page of the list; `before` is the `older` of the page before it.

    Raises:
        BadPlace: `before` is no such text.
    """
    place = None if before is None else parse_place(before)
    rows = refusal_counts.newest(connection, wanted, limit=limit + 1, before=place)
    older = spell_place(rows[limit - 1].key) if len(rows) > limit else None
    return RefusalPage(refusals=tuple(rows[:limit]), older=older)


def rejected_page(
    connection: Connection,
    wanted: RejectedFilter,
    *,
    limit: int,
    before: UUID | None = None,
    now: datetime,
) -> RejectedListing:
    """Return a page of the list of rejected deliveries."""
    listed = rejected.newest(connection, wanted, limit=limit, before=before)
    reasons = sorted({delivery.rejected for delivery in listed.deliveries})
    told = refusal_counts.sentences(connection, reasons, since=now - _SENTENCES_OF)
    return RejectedListing(
        deliveries=tuple(_listed(delivery, told) for delivery in listed.deliveries),
        older=listed.older,
    )


def of_request(
    connection: Connection,
    request: UUID,
    sources: Mapping[str, Source],
    *,
    now: datetime,
    show: Show = tuple,
) -> RefusalOfRequest:
    """Return which refusals a request may be, by the id that its answer has.

    Raises:
        NotFound: nothing was refused at that time.
    """
    try:
        at = ids.received_at(request)
    except ValueError:  # a time after the year 9999
        raise NotFound(f"No request has the id {request}.", reason="not_found") from None
    rows = refusal_counts.of_moment(connection, request=request, at=at, limit=_LOOKED_UP)
    if not rows:
        raise NotFound(
            f"Nothing is kept that was refused at {causes.moment(at)}, when a request of the id"
            f" {request} came.",
            reason="not_found",
        )
    is_certain = rows[0].request == request
    if is_certain:
        rows = rows[:1]
    totals = {(row.reason, row.source): _as_total(row) for row in reversed(rows)}
    return RefusalOfRequest(
        request=request,
        at=at,
        is_certain=is_certain,
        reasons=tuple(
            _with_causes(connection, list(totals.values())[::-1], sources, now=now, show=show)
        ),
        refusals=tuple(rows),
    )


def _with_causes(
    connection: Connection,
    totals: Sequence[ReasonTotal],
    sources: Mapping[str, Source],
    *,
    now: datetime,
    show: Show,
) -> list[ReasonGroup]:
    if not totals:
        return []
    samples = show(refused_requests.newest(connection))
    uses = []
    mismatched = {total.source for total in totals if total.reason == causes.MISMATCH}
    if mismatched:
        keys = {slug: source.key_ids for slug, source in sources.items()}
        uses = key_use.last_uses(connection, keys, mismatched, now=now)
    facts = Facts(sources=sources, samples=samples, uses=uses)
    return [
        ReasonGroup(
            total=total,
            cause=causes.of_refusals(total, facts),
            sample=causes.sample_of(total, samples),
        )
        for total in totals
    ]


def _as_total(row: RefusedRequests) -> ReasonTotal:
    return ReasonTotal(
        reason=row.reason,
        source=row.source,
        status=row.status,
        sentence=row.sentence,
        count=row.count,
        addresses=int(bool(row.client)),
        has_more_addresses=not row.client,
        first_at=row.first_at,
        last_at=row.last_at,
        request=row.request,
    )


def _listed(delivery: RejectedDelivery, told: Mapping[tuple[str, str], str]) -> ListedRejected:
    is_whole = delivery.part_of is None
    sentence = told.get((delivery.source, delivery.rejected)) if is_whole else None
    return ListedRejected(
        id=delivery.id,
        source=delivery.source,
        received_at=delivery.received_at,
        rejected=delivery.rejected,
        size=delivery.size,
        part_of=delivery.part_of,
        status=HTTPStatus.BAD_REQUEST if is_whole else HTTPStatus.OK,
        sentence=sentence,
    )


def of_rejected(wanted: RefusalFilter) -> RejectedFilter:
    """Return the same filter of rejected deliveries, which are kept without an address."""
    return RejectedFilter(
        since=wanted.since,
        until=wanted.until,
        source=wanted.source,
        reason=wanted.reason,
        text=wanted.text,
    )


def spell_place(key: Key) -> str:
    """Return a row's place in the list as a text for addresses."""
    spelled = "\n".join((key.minute.isoformat(), key.reason, key.source, key.client))
    return base64.urlsafe_b64encode(spelled.encode()).decode().rstrip("=")


def parse_place(text: str) -> Key:
    """Return the place that a text names.

    Raises:
        BadPlace: it names none.
    """
    try:
        spelled = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
        minute, reason, source, client = spelled.split("\n")
        moment = datetime.fromisoformat(minute)
        if moment.tzinfo is None or "\0" in spelled:
            raise ValueError
    except (ValueError, binascii.Error):
        raise BadPlace(
            "There is no such place in the list: begin with its first page.", reason="bad_place"
        ) from None
    return Key(moment, reason, source, client)
