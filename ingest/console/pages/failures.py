"""The page of failures: what fails in one way, with its state."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ingest.console.pages.site import Site, time_range, user
from ingest.console.services import failures
from ingest.console.services.failure_changes import LONGEST_NAME
from ingest.console.services.failures import FailuresShown, Wanted
from ingest.console.services.ranges import Range
from ingest.console.ui.paths import link
from ingest.recovery import sentences
from ingest.store.failures.records import LISTED, Sort, State
from ingest.store.reports import possible_losses

ALL = "all"
SORTS: Mapping[Sort, str] = MappingProxyType(
    {
        Sort.JOBS: "jobs that fail now",
        Sort.LAST_SEEN: "last seen",
        Sort.FIRST_SEEN: "newest",
        Sort.ATTEMPTS: "attempts ever",
    }
)
"""What the page calls the orders."""

Narrow = Callable[..., str]
"""Returns the address of this page with other parameters; an empty one is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailuresPage:
    """The view model of `failures.html`."""

    range: Range
    """What trends cover. The numbers of failing jobs are those of now."""
    state: str
    """The state whose groups are shown, or `all`."""
    sort: Sort
    sorts: Mapping[Sort, str]
    assigned_to: str | None
    """Whose groups are shown; None: everybody's."""
    me: str
    """The name of the user."""
    failures: FailuresShown
    most: int
    """So many recorded groups are listed, at most."""
    narrow: Narrow
    possible_losses: tuple[str, ...]
    """What was refused and is not sent again, in sentences."""


def routes(site: Site) -> list[BaseRoute]:
    """Return the page's routes."""
    return [site.get("/failures", show, name="failures")]


def show(site: Site, request: Request) -> Response:
    """Show what fails."""
    console, now = site.console, site.console.now()
    period = time_range(request, default=Range.DAY)
    state, sort, assigned_to = _state(request), _sort(request), _assigned_to(request)
    wanted = Wanted(
        states=tuple(State) if state == ALL else (State(state),),
        assigned_to=assigned_to,
        sort=sort,
        range=period,
    )
    with console.engine.connect() as connection:
        shown = failures.listed(
            connection, wanted, sources=console.sources, now=now, masked=site.masks(request)
        )
        losses = possible_losses.read(connection, now=now)
    view = FailuresPage(
        range=period,
        state=state,
        sort=sort,
        sorts=SORTS,
        assigned_to=assigned_to,
        me=user(request).name,
        failures=shown,
        most=LISTED,
        narrow=partial(
            _narrow,
            {
                "state": None if state == State.OPEN else state,
                "sort": None if sort is Sort.JOBS else sort.value,
                "assigned_to": assigned_to,
                "range": period.value,
            },
        ),
        possible_losses=tuple(sentences.of_losses(losses, now=now)),
    )
    return site.render(request, "failures.html", view, section="failures")


def _narrow(asked: Mapping[str, object], /, **changes: object) -> str:
    return link("/failures", **{**asked, **changes})


def _state(request: Request) -> str:
    state = request.query_params.get("state", State.OPEN)
    return state if state in (*State, ALL) else State.OPEN.value


def _sort(request: Request) -> Sort:
    try:
        return Sort(request.query_params.get("sort", Sort.JOBS))
    except ValueError:
        return Sort.JOBS


def _assigned_to(request: Request) -> str | None:
    name = request.query_params.get("assigned_to", "").replace("\0", "").strip()
    return name[:LONGEST_NAME] or None
