"""The page of refused requests and rejected deliveries: why, from where, and each of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from uuid import UUID

from markupsafe import Markup
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ingest.console.dependencies import PAGE_SIZE
from ingest.console.pages.site import Site, time_range
from ingest.console.services import refusals
from ingest.console.services.ranges import Range
from ingest.console.services.refusals import Asked, Period
from ingest.console.ui import masking
from ingest.console.ui.charts import Series, bars
from ingest.console.ui.formats import iso
from ingest.console.ui.paths import between, link, parse_uuid
from ingest.errors import NotFound
from ingest.recovery import sentences
from ingest.refusals import report
from ingest.refusals.report import ListedRejected, ReasonGroup, RefusalOfRequest, RejectedGroup
from ingest.sources.base import Source
from ingest.store.reports import possible_losses, refusal_counts
from ingest.store.reports.refusal_counts import AddressTotal, RefusalFilter, RefusedRequests

REFUSED, REJECTED = "refused", "rejected"
_LONGEST_VALUE = 200
_SERIES = 5
"""So many reasons have a colour of their own; the others share one."""
_OTHERS = "others"

Narrow = Callable[..., str]
"""Returns the address of this page with other parameters; an empty one is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalsPage:
    """The view model of `refusals.html`."""

    kind: str
    """`refused` or `rejected`: which list is shown."""
    asked: Asked
    is_range: bool
    """Whether the period is a range; otherwise since and until were given."""
    period: Period
    narrow: Narrow
    sources: Sequence[str]
    """The slugs to choose from."""
    reasons: Sequence[ReasonGroup]
    addresses: Sequence[AddressTotal]
    rejected: Sequence[RejectedGroup]
    """Why: of refused requests the first two, of rejected deliveries the third."""
    known_reasons: Sequence[str]
    """The slugs to choose from."""
    chart: Markup
    refusals: tuple[RefusedRequests, ...]
    deliveries: tuple[ListedRejected, ...]
    """The one list or the other, the newest first."""
    older: str | None
    newer: str | None
    """Links to the next page and to the first."""
    possible_losses: tuple[str, ...]
    """What was refused and is not sent again, in sentences."""
    looked_up: RefusalOfRequest | None
    """What the id in the text says; None: the text is none, or nothing is known of it."""
    is_number: bool
    """Whether the text is an id."""


def routes(site: Site) -> list[BaseRoute]:
    """Return the page's routes."""
    return [site.get("/refusals", show, name="refusals")]


def show(site: Site, request: Request) -> Response:
    """Show why requests were refused, from where they came, and each of them."""
    console, now = site.console, site.console.now()
    asked, kind = _asked(request), _kind(request)
    number = parse_uuid(asked.text)
    meant = asked if number is None else replace(asked, text=None)
    period = refusals.period(meant, now)
    wanted = replace(refusals.wanted(meant, now), since=period.since, until=period.until)
    narrow = partial(_narrow, asked, kind)
    as_shown = partial(masking.refusals, masked=site.masks(request))
    with console.engine.connect() as connection:
        tell = partial(report.of_request, connection, now=now, show=as_shown)
        looked_up = _look_up(partial(tell, sources=console.sources), number)
        why = _why(connection, wanted, kind, console.sources, now=now, show=as_shown)
        chart = _chart(connection, wanted, period, narrow)
        shown = _list(connection, request, wanted, kind, now=now)
        losses = possible_losses.read(connection, now=now)
    view = RefusalsPage(
        kind=kind,
        asked=asked,
        is_range=asked.since is None and asked.until is None,
        period=period,
        narrow=narrow,
        sources=sorted(slug for slug, source in console.sources.items() if source.secrets),
        reasons=why.reasons,
        addresses=why.addresses,
        rejected=why.rejected,
        known_reasons=sorted(why.known),
        chart=chart,
        refusals=shown.refusals,
        deliveries=shown.deliveries,
        older=narrow(before=shown.older) if shown.older else None,
        newer=narrow() if "before" in request.query_params else None,
        possible_losses=tuple(sentences.of_losses(losses, now=now)),
        looked_up=looked_up,
        is_number=number is not None,
    )
    return site.render(request, "refusals.html", view, section="refusals")


def _asked(request: Request) -> Asked:
    def value(name: str) -> str | None:
        return request.query_params.get(name, "").replace("\0", "")[:_LONGEST_VALUE] or None

    return Asked(
        range=time_range(request, default=Range.DAY),
        since=value("since"),
        until=value("until"),
        source=value("source"),
        reason=value("reason"),
        address=value("address"),
        text=value("q"),
    )


def _kind(request: Request) -> str:
    return REJECTED if request.query_params.get("kind") == REJECTED else REFUSED


def _narrow(asked: Asked, kind: str, /, **changes: object) -> str:
    """Return the address of the page with what is asked for, and with these changes."""
    is_range = not (asked.since or asked.until or changes.get("since"))
    parameters: dict[str, object] = {
        "kind": kind if kind == REJECTED else None,
        "range": asked.range.value if is_range else None,
        "since": asked.since,
        "until": asked.until,
        "source": asked.source,
        "reason": asked.reason,
        "address": asked.address,
        "q": asked.text,
    }
    return link("/refusals", **(parameters | changes))


def _chart(connection: Connection, wanted: RefusalFilter, period: Period, narrow: Narrow) -> Markup:
    """Draw how many requests were refused over time, by reason; bars lead to their rows."""
    counts = refusal_counts.over_time(connection, wanted, span=period.span)
    most = sorted(counts, key=lambda reason: (-sum(counts[reason].values()), reason))
    begins = period.begins

    def values(reasons: Sequence[str]) -> list[int]:
        return [sum(counts[reason].get(moment, 0) for reason in reasons) for moment in begins]

    series = [
        Series(
            name=reason,
            tone=f"group-{place}",
            values=values([reason]),
            link=between(partial(_of_bar, narrow, reason), iso),
            leads_to="requests",
        )
        for place, reason in enumerate(most[:_SERIES], start=1)
    ]
    if most[_SERIES:]:
        series.append(Series(name=_OTHERS, tone="group-others", values=values(most[_SERIES:])))
    return bars(
        series,
        begins,
        span=period.span,
        unit="refused requests",
        label="Refused requests over time",
    )


def _of_bar(narrow: Narrow, reason: str, since: datetime, until: datetime) -> str:
    return (
        narrow(kind=None, range=None, since=iso(since), until=iso(until), reason=reason) + "#list"
    )


def _look_up(
    tell: Callable[[UUID], RefusalOfRequest], number: UUID | None
) -> RefusalOfRequest | None:
    """Return what became of the request of that number; None: there is none, or nothing is kept."""
    if number is None:
        return None
    try:
        return tell(number)
    except NotFound:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Why:
    """Why requests were refused, or deliveries rejected."""

    reasons: tuple[ReasonGroup, ...] = ()
    addresses: tuple[AddressTotal, ...] = ()
    rejected: tuple[RejectedGroup, ...] = ()

    @property
    def known(self) -> set[str]:
        """Return the slugs of the reasons."""
        return {group.total.reason for group in self.reasons} | {
            group.total.reason for group in self.rejected
        }


def _why(
    connection: Connection,
    wanted: RefusalFilter,
    kind: str,
    sources: Mapping[str, Source],
    *,
    now: datetime,
    show: report.Show,
) -> _Why:
    """Read what the list of this kind is about, and not the other."""
    if kind == REJECTED:
        return _Why(rejected=report.rejected_groups(connection, wanted))
    return _Why(
        reasons=report.reasons(connection, wanted, sources, now=now, show=show),
        addresses=report.addresses(connection, wanted),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """A page of one list or the other."""

    refusals: tuple[RefusedRequests, ...] = ()
    deliveries: tuple[ListedRejected, ...] = ()
    older: str | UUID | None


def _list(
    connection: Connection, request: Request, wanted: RefusalFilter, kind: str, *, now: datetime
) -> _Shown:
    before = request.query_params.get("before") or None
    if kind == REFUSED:
        page = report.page(connection, wanted, limit=PAGE_SIZE, before=before)
        return _Shown(refusals=page.refusals, older=page.older)
    listing = report.rejected_page(
        connection,
        report.of_rejected(wanted),
        limit=PAGE_SIZE,
        before=parse_uuid(before),
        now=now,
    )
    return _Shown(deliveries=listing.deliveries, older=listing.older)
