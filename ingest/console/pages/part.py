"""The part of the past that a page is narrowed to, as its address names it."""

from dataclasses import dataclass
from datetime import datetime

from starlette.requests import Request

from ingest.console.services import ranges
from ingest.console.services.ranges import Range, Window
from ingest.console.ui.formats import iso
from ingest.console.ui.paths import events_link, link
from ingest.timestamps import parse_moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of the past, and where it leads."""

    since: datetime
    until: datetime
    events_href: str
    """What was received then."""


def of_request(request: Request, *, now: datetime) -> Window | None:
    """Return the part of the past that the address names; None: it names none that can be shown."""
    since = parse_moment(request.query_params.get("since", ""), now=now)
    until = parse_moment(request.query_params.get("until", ""), now=now)
    return None if since is None or until is None else ranges.part(since, until, now=now)


def shown(window: Window, **conditions: str) -> Part:
    """Return a part of the past, which leads to the events of then that meet these conditions."""
    return Part(
        since=window.since,
        until=window.until,
        events_href=events_link(since=window.since, until=window.until, **conditions),
    )


def parameters(part: Window | None, period: Range) -> str:
    """Return the parameters of a page's address that say of which time it is."""
    if part is None:
        return f"range={period}"
    return link("", since=iso(part.since), until=iso(part.until))[1:]
