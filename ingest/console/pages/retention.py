"""The page of retention: what goes at which age, what has gone, and what would go now."""

from dataclasses import dataclass
from datetime import date

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ingest.console.pages.site import Site
from ingest.store.retention import report
from ingest.store.retention.report import EXAMINED, Bodies, Held

_REFRESH_S = 30.0
"""A pass is made every five minutes."""
_MANY = 1_000_000_000
_ENOUGH = 1_000
"""From so many rows on, what a row takes is told: fewer do not fill their pages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of row that retention removes."""

    name: str
    held: Held
    is_more: bool
    """Whether more would go now than were counted."""
    many_bytes: int | None
    """What a thousand million of them would take; None: there are too few to tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPage:
    """The view model of `retention.html`."""

    obstacle: str | None
    """Why no event may be removed now, as a sentence."""
    kinds: tuple[Kind, ...]
    bodies: Bodies
    today: date
    """In UTC."""
    is_all_kept: bool
    """Whether nothing has an age."""


def routes(site: Site) -> list[BaseRoute]:
    """Return the page's routes."""
    return [site.get("/retention", show, name="retention")]


def show(site: Site, request: Request) -> Response:
    """Show what is kept, and what goes."""
    settings, now = site.console.settings, site.console.now()
    with site.console.engine.connect() as connection:
        state = report.read(
            connection, settings.ages, body_age_days=settings.body_retention_days, now=now
        )
    view = RetentionPage(
        obstacle=state.obstacle,
        kinds=tuple(map(_kind, state.kinds)),
        bodies=state.bodies,
        today=now.date(),
        is_all_kept=settings.ages.are_all_unset and state.bodies.age_days is None,
    )
    return site.render(request, "retention.html", view, section="retention", refresh_s=_REFRESH_S)


def _kind(held: Held) -> Kind:
    return Kind(
        name=held.kind.replace("_", " "),
        held=held,
        is_more=held.due == EXAMINED,
        many_bytes=held.bytes * _MANY // held.rows if held.rows >= _ENOUGH else None,
    )
