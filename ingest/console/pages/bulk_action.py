"""The pages of a bulk action, which replays or discards many events: its preview and progress."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ingest.console.dependencies import LONGEST_QUERY
from ingest.console.errors import BadRequest, NotPossible
from ingest.console.pages.freshness import REFRESH_S
from ingest.console.pages.site import Site, redirect, user
from ingest.console.ui import masking
from ingest.console.ui.forms import event_ids, rate_field, text_field
from ingest.console.ui.paths import link
from ingest.query import spell
from ingest.store.bulk import replay as bulk_actions
from ingest.store.bulk.replay import DISCARD, REPLAY, Counts, Operation
from ingest.store.bulk.work import MOST
from ingest.store.search import events
from ingest.store.search.events import ListedEvent
from ingest.store.search.filters import UNHANDLED, EventFilter
from ingest.store.search.titles import titled

_SAMPLE_SIZE = 5
_SHOWN_IDS = 5
_LARGE = 20_000
"""Jobs of a bulk action from which its page is refreshed less often."""
_NOTHING = EventFilter(ids=(UUID(int=0),))
_NOTICES = {"has_ended": "It had already finished: nothing of it was left to begin."}
_STATUSES = {"pause": "paused", "resume": "running", "cancel": "cancelled"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewPage:
    """The view model of `preview.html`."""

    action: str
    """`replay` or `discard`."""
    counts: Counts
    by_processor: Sequence[tuple[str, int]]
    """The number of jobs of each processor."""
    filters: tuple[tuple[str, str], ...]
    """Names and values of what is selected; empty: everything."""
    q: str
    ids: tuple[UUID, ...]
    """What the form posts again: the search, and the selected events (empty: all that match)."""
    processor: str | None
    """Whose jobs alone of the selected events are meant; None: those of all."""
    all_jobs: bool
    """Whether jobs that have succeeded are repeated, too."""
    scope: str
    """`selected` or `all`, as the preview was asked for."""
    back: str
    sample: tuple[ListedEvent, ...]
    problem: str | None
    """Why the action is impossible; None: it is possible."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A number of jobs of a bulk action."""

    label: str
    state: str
    """Whose colour it has."""
    jobs: int
    href: str | None
    """The list of exactly these events; None: they are in no list."""
    is_capped: bool = False
    """Whether there are more than were counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkActionPage:
    """The view model of `bulk_action.html`."""

    bulk_action: Operation
    filters: tuple[tuple[str, str], ...]
    """Names and values of what is selected; empty: everything."""
    events_href: str
    figures: tuple[Figure, ...]
    """What has become of its jobs."""
    speed: float | None
    """Jobs per second; None: unknown."""
    remaining_s: float | None
    """An estimate in seconds; None: unknown."""
    notice: str | None
    """Why a change was not made, as a sentence."""


def routes(site: Site) -> list[BaseRoute]:
    """Return the routes of the pages and their forms."""
    return [
        site.post("/events/preview", preview, name="preview", changes=False),
        site.post("/bulk-actions", begin, name="begin bulk action"),
        site.get("/bulk-actions/{id:number}", show, name="bulk action"),
        site.post("/bulk-actions/{id:number}/{change}", change, name="change bulk action"),
    ]


def show(site: Site, request: Request) -> Response:
    """Show a bulk action and its progress."""
    with site.console.engine.connect() as connection:
        bulk_action = bulk_actions.operation(connection, request.path_params["id"])
    bulk_action = masking.bulk_action(bulk_action, masked=site.masks(request))
    speed = _speed(bulk_action, now=site.console.now())
    left = bulk_action.work.unfinished + bulk_action.work.to_begin
    view = BulkActionPage(
        bulk_action=bulk_action,
        filters=describe_filters(bulk_action.selection),
        events_href=link("/events", q=spell(bulk_action.selection)),
        figures=tuple(figures(bulk_action)),
        speed=speed,
        remaining_s=left / speed if speed else None,
        notice=_NOTICES.get(request.query_params.get("notice", "")),
    )
    return site.render(
        request, "bulk_action.html", view, section="audit-log", refresh_s=_refresh_s(bulk_action)
    )


def preview(site: Site, request: Request, form: FormData) -> Response:
    """Show what a bulk action would change, before it begins."""
    action, _, scope = text_field(form, "action").partition("-")
    if action not in (REPLAY, DISCARD) or scope not in ("selected", "all"):
        raise BadRequest("The action must be a replay or a discard.", reason="bad_action")
    ids = event_ids(form) if scope == "selected" else ()
    text = text_field(form, "q")[:LONGEST_QUERY]
    processor = text_field(form, "processor") or None
    selection, problem = _selection(site, request, text, ids, scope, processor)
    all_jobs = bool(text_field(form, "all_jobs"))
    if action == REPLAY:
        selection = selection.for_replay(all_jobs=all_jobs)
    pinned = site.console.commands.pin(selection)
    with site.console.engine.connect() as connection:
        counts = bulk_actions.count(connection, pinned, action=action)
        by_processor = bulk_actions.by_processor(connection, pinned, action=action)
        sampled = sample_selection(pinned, counts)
        sample = titled(
            connection,
            events.page(connection, sampled, limit=_SAMPLE_SIZE).events,
            site.console.sources,
        )
    view = PreviewPage(
        action=action,
        counts=counts,
        by_processor=by_processor,
        filters=describe_filters(selection),
        q=text,
        ids=ids,
        processor=processor,
        all_jobs=all_jobs,
        scope=scope,
        back=link("/events", q=text),
        sample=masking.events(sample, masked=site.masks(request)),
        problem=problem,
    )
    return site.render(request, "preview.html", view, section="events")


def begin(site: Site, request: Request, form: FormData) -> Response:
    """Begin a bulk action."""
    ids = event_ids(form)
    text = text_field(form, "q")[:LONGEST_QUERY]
    scope = "selected" if ids else "all"
    processor = text_field(form, "processor") or None
    selection, problem = _selection(site, request, text, ids, scope, processor)
    if problem is not None:
        raise BadRequest(problem, reason="bad_query")
    bulk_action = site.console.commands.begin(
        user(request),
        selection,
        action=text_field(form, "action"),
        reason=text_field(form, "reason"),
        rate=rate_field(form, "rate"),
        all_jobs=bool(text_field(form, "all_jobs")),
    )
    return redirect(f"/bulk-actions/{bulk_action.id}")


def change(site: Site, request: Request, form: FormData) -> Response:
    """Pause, resume or cancel a bulk action."""
    status = _STATUSES.get(request.path_params["change"])
    if status is None:
        raise BadRequest("The change must be pause, resume or cancel.", reason="bad_action")
    number = request.path_params["id"]
    try:
        site.console.commands.change(user(request), number, status, text_field(form, "reason"))
    except NotPossible as error:
        return redirect(link(f"/bulk-actions/{number}", notice=error.reason))
    return redirect(f"/bulk-actions/{number}")


def figures(bulk_action: Operation) -> Iterator[Figure]:
    """Return what has become of the jobs of a bulk action; what is nothing is left out, but for
    what everybody asks about."""
    work, number = bulk_action.work, bulk_action.id
    if bulk_action.action == REPLAY:
        yield _figure("waiting", "pending", work.pending, replay=number)
        if work.unadmitted:
            yield Figure(
                label="events to be admitted",
                state="pending",
                jobs=work.unadmitted,
                href=None,
                is_capped=work.unadmitted >= MOST,
            )
        yield _figure("running", "running", work.running, replay=number)
        yield _figure("succeeded", "succeeded", work.succeeded, replay=number)
        yield _figure("failed again, to be retried", "retrying", work.retrying, replay=number)
        yield _figure("failed again, dead", "dead", work.dead, replay=number)
    if bulk_action.action == DISCARD or work.discarded:
        yield _figure("discarded", "discarded", work.discarded, replay=number)
    if work.taken_back:
        href = link("/events", q=f"taken_back:{number}")
        yield Figure(label="taken back", state="cancelled", jobs=work.taken_back, href=href)


def _figure(label: str, state: str, jobs: int, *, replay: int) -> Figure:
    href = link("/events", q=f"replay:{replay} state:{state}") if jobs else None
    return Figure(label=label, state=state, jobs=jobs, href=href, is_capped=jobs >= MOST)


def describe_filters(selection: EventFilter) -> tuple[tuple[str, str], ...]:
    """Return names and values that describe a selection."""
    if not selection.ids:
        search = spell(selection)
        return (("search", search),) if search else ()
    shown = ", ".join(str(event) for event in selection.ids[:_SHOWN_IDS])
    more = len(selection.ids) - _SHOWN_IDS
    events = ("events", shown + (f" and {more} more" if more > 0 else ""))
    return (events, ("processor", selection.processor)) if selection.processor else (events,)


def sample_selection(selection: EventFilter, counts: Counts) -> EventFilter:
    """Narrow a selection without a state to the state of the events that the action changes."""
    if not selection.means_what_failed:
        return selection
    return replace(selection, state=UNHANDLED if counts.events and not counts.jobs else "dead")


def _selection(
    site: Site,
    request: Request,
    text: str,
    ids: Sequence[UUID],
    scope: str,
    processor: str | None,
) -> tuple[EventFilter, str | None]:
    """Return what a form selects, and what is wrong with it.

    A search that is understood in part only would select more than its author thinks. Of selected
    events only the jobs of `processor` are meant, if the form names one.
    """
    if scope == "selected":
        if not ids:
            return _NOTHING, "Nothing is selected."
        return EventFilter(ids=tuple(ids), processor=processor), None
    query = site.parse_search(request, text)
    return query.selection, query.problems[0].message if query.problems else None


def _refresh_s(bulk_action: Operation) -> float:
    """Return how often its page is refreshed: a large one is slower to count."""
    if not bulk_action.is_moving:
        return REFRESH_S
    return 1.0 if bulk_action.work.total < _LARGE else 3.0


def _speed(bulk_action: Operation, *, now: datetime) -> float | None:
    """Return the jobs per second that have come to an end so far."""
    took_s = (now - bulk_action.requested_at).total_seconds()
    done = bulk_action.work.done
    return done / took_s if took_s > 0 and done else None
