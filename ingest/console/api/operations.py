"""The JSON API under /api/v1: each operation with its schema."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from ingest.console.api import endpoints, openapi
from ingest.console.api.endpoints import Call, Endpoint, Input, get, post
from ingest.console.auth.identity import Identity
from ingest.console.dependencies import LONGEST_QUERY, PAGE, Console
from ingest.console.errors import BadRequest
from ingest.console.services import event_query, event_view
from ingest.console.services.commands import TestEvent
from ingest.console.services.event_view import EventView
from ingest.console.services.overview import Overview, Range
from ingest.console.ui import masking
from ingest.sources import registry
from ingest.store.bulk import replay
from ingest.store.bulk.replay import Counts, Operation
from ingest.store.pipeline import processors
from ingest.store.pipeline.processors import ProcessorRecord
from ingest.store.reports import audit_log, event_detail, failures, refused_requests
from ingest.store.reports.audit_log import Action
from ingest.store.reports.failures import Failures, Rejected
from ingest.store.reports.refused_requests import Refusal
from ingest.store.reports.totals import Stats
from ingest.store.search.counts import Count
from ingest.store.search.events import ListedEvent
from ingest.store.search.filters import EventFilter

PREFIX = "/api/v1"
_MOST = 200
_IDS = 1_000
_LARGEST_ID = 2**63 - 1
_NOT_FOUND = (HTTPStatus.NOT_FOUND,)
_CONFLICT = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)

_Text = Annotated[str, Field(max_length=LONGEST_QUERY, pattern=r"^[^\x00]*$")]
_Reason = Annotated[str | None, Field(max_length=500, pattern=r"^[^\x00]*$")]


def routes(console: Console) -> list[BaseRoute]:
    """Return the API's routes, that of its document among them."""
    document = openapi.document(ENDPOINTS, prefix=PREFIX, version=console.version)

    async def serve_document(_request: Request) -> Response:
        return JSONResponse(document)

    return [
        Route(f"{PREFIX}/openapi.json", serve_document, methods=["GET"], name="openapi"),
        *endpoints.routes(console, ENDPOINTS, prefix=PREFIX),
    ]


class EventsQuery(Input):
    """Which events, and which page of them."""

    q: _Text = Field("", description="what to search for, in the syntax of the console's search")
    limit: int = Field(PAGE, ge=1, le=_MOST)
    before: UUID | None = Field(None, description="only events older than this one")
    after: UUID | None = Field(None, description="only events newer than this one")


class OverviewQuery(Input):
    """How far to look back."""

    range: Range = Range.HOUR


class PageQuery(Input):
    """Which page."""

    limit: int = Field(PAGE, ge=1, le=_MOST)
    before: int | None = Field(None, ge=1, le=_LARGEST_ID)


class Why(Input):
    """Why it is done; kept for good."""

    reason: _Reason = None


_SOME_IDS: dict[str, Any] = {"required": ["ids"], "properties": {"ids": {"minItems": 1}}}
_SOME_QUERY: dict[str, Any] = {"required": ["q"], "properties": {"q": {"pattern": r"\S"}}}
_EVERYTHING: dict[str, Any] = {
    "required": ["everything"],
    "properties": {"everything": {"const": True}},
}


class Wanted(Input):
    """What to replay or discard: events by their ids, or all that a search means."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [_SOME_IDS, _SOME_QUERY, _EVERYTHING],
            "not": {"allOf": [_SOME_IDS, _SOME_QUERY]},
        }
    )

    action: Literal["replay", "discard"] = "replay"
    ids: list[UUID] = Field(default_factory=list, max_length=_IDS)
    q: _Text = ""
    everything: bool = Field(
        False, description="needed where neither `ids` nor `q` narrows it: all dead letters"
    )
    reason: _Reason = None
    rate: float | None = Field(None, ge=0.001, le=1_000_000, allow_inf_nan=False)
    dry_run: bool = Field(False, description="count, change nothing")


def _name_types(schema: dict[str, Any]) -> None:
    """Name the types of which there are samples, of whichever sender."""
    types = (name for source in registry.classes().values() for name in source.samples.types)
    schema["enum"] = [*dict.fromkeys(types), None]


def _name_sources(schema: dict[str, Any]) -> None:
    """Name the senders."""
    schema["enum"] = [*registry.classes(), None]


class TestWanted(Input):
    """Which sample to send."""

    type: str | None = Field(
        None,
        max_length=200,
        description="the event type; null: the sender's first sample",
        json_schema_extra=_name_types,
    )
    source: str | None = Field(
        None,
        max_length=200,
        description="as which sender; null: the default source",
        json_schema_extra=_name_sources,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """A page of events, newest first."""

    events: tuple[ListedEvent, ...]
    older: UUID | None
    """Give it as `before` for the next page; None: there is none."""
    newer: UUID | None
    """Give it as `after` for the page before."""
    searched_to: str | None
    """A search that ran out of time has read back to this time; `older` goes on from there."""
    count: Count
    """Of all that match."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bulk:
    """A replay or discard, or what it would touch."""

    counts: Counts
    operation: Operation | None
    """None: it was only counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """It is done."""

    done: bool = True


@get("/overview", query=OverviewQuery)
def read_overview(console: Console, call: Call) -> Overview:
    """What the last hour, day or week looked like."""
    found = console.overviews.read(call.query.range)
    masked = masking.applies(console.settings, call.by)
    return replace(found, processors=event_view.of_processors(found.processors, masked=masked))


@get("/stats")
def read_stats(console: Console, _call: Call) -> Stats:
    """Counts of everything."""
    return console.overviews.read(Range.HOUR).stats


@get("/events", query=EventsQuery)
def search_events(console: Console, call: Call) -> EventPage:
    """Search events, newest first."""
    selection = _selection(console, call.by, call.query.q)
    found = event_query.find(
        console.engine,
        selection,
        limit=call.query.limit,
        before=call.query.before,
        after=call.query.after,
    )
    page = found.page
    masked = masking.applies(console.settings, call.by)
    return EventPage(
        events=event_view.of_listed((*page.named, *page.events), masked=masked),
        older=page.older,
        newer=page.newer,
        searched_to=page.reached.isoformat() if page.reached else None,
        count=found.count,
    )


@get("/events/{id:uuid}", errors=_NOT_FOUND)
def show_event(console: Console, call: Call) -> EventView:
    """One event with its deliveries, jobs and attempts."""
    with console.engine.connect() as connection:
        found = event_detail.of_event(connection, call.path["id"], **event_view.BOUNDS)
    return event_view.of_event(found, masked=masking.applies(console.settings, call.by))


@post("/events/{id:uuid}/replay", body=Why, errors=_NOT_FOUND)
def replay_event(console: Console, call: Call) -> Bulk:
    """Replay an event."""
    return _begin(console, call.by, EventFilter(ids=(call.path["id"],)), "replay", call.body.reason)


@post("/events/{id:uuid}/discard", body=Why, errors=_NOT_FOUND)
def discard_event(console: Console, call: Call) -> Bulk:
    """Discard what of an event waits or is dead."""
    return _begin(
        console, call.by, EventFilter(ids=(call.path["id"],)), "discard", call.body.reason
    )


@post("/jobs/{id:number}/retry", body=Why, errors=_CONFLICT)
def retry_job(console: Console, call: Call) -> Done:
    """Let a waiting job run now, or replay a dead one."""
    console.operations.retry_now(call.by, call.path["id"], call.body.reason)
    return Done()


@post("/jobs/{id:number}/replay", body=Why, errors=_NOT_FOUND)
def replay_job(console: Console, call: Call) -> Operation:
    """Replay one job."""
    return console.operations.replay_job(call.by, call.path["id"], call.body.reason)


@post("/jobs/{id:number}/discard", body=Why, errors=_NOT_FOUND)
def discard_job(console: Console, call: Call) -> Operation:
    """Discard one job."""
    return console.operations.discard_job(call.by, call.path["id"], call.body.reason)


@get("/replays", query=PageQuery)
def list_replays(console: Console, call: Call) -> Sequence[Operation]:
    """Replays and discards, newest first."""
    with console.engine.connect() as connection:
        found = replay.operations(connection, limit=call.query.limit, before=call.query.before)
    masked = masking.applies(console.settings, call.by)
    return [event_view.of_operation(each, masked=masked) for each in found]


@post("/replays", body=Wanted, needs_body=True)
def begin_replay(console: Console, call: Call) -> Bulk:
    """Replay or discard some events, or all that a search means."""
    wanted: Wanted = call.body
    if not wanted.ids and not wanted.everything and _is_everything(console, call):
        raise BadRequest(
            "Say what: ids, q, or everything for all dead letters.", reason="nothing_selected"
        )
    selection = (
        EventFilter(ids=tuple(wanted.ids)) if wanted.ids else _selection(console, call.by, wanted.q)
    )
    if wanted.ids and wanted.q:
        raise BadRequest("Give ids or q, not both.", reason="bad_body")
    if wanted.dry_run:
        counts = console.operations.preview(selection, wanted.action)
        return Bulk(counts=counts, operation=None)
    begun = console.operations.begin(
        call.by, selection, action=wanted.action, reason=wanted.reason, rate=wanted.rate
    )
    return Bulk(counts=begun.counts, operation=begun)


@get("/replays/{id:number}", errors=_NOT_FOUND)
def show_replay(console: Console, call: Call) -> Operation:
    """How far a replay or discard is."""
    with console.engine.connect() as connection:
        found = replay.operation(connection, call.path["id"])
    return event_view.of_operation(found, masked=masking.applies(console.settings, call.by))


@post("/replays/{id:number}/pause", body=Why, errors=_CONFLICT)
def pause_replay(console: Console, call: Call) -> Operation:
    """Pause it."""
    return _change(console, call, "paused")


@post("/replays/{id:number}/resume", body=Why, errors=_CONFLICT)
def resume_replay(console: Console, call: Call) -> Operation:
    """Go on with it."""
    return _change(console, call, "running")


@post("/replays/{id:number}/cancel", body=Why, errors=_CONFLICT)
def cancel_replay(console: Console, call: Call) -> Operation:
    """Cancel it; what is done stays done."""
    return _change(console, call, "cancelled")


@get("/failures")
def list_failures(console: Console, call: Call) -> Failures:
    """What fails, grouped."""
    with console.engine.connect() as connection:
        found = failures.groups(connection, now=console.now())
    return event_view.of_failures(found, masked=masking.applies(console.settings, call.by))


@get("/rejected")
def list_rejected(console: Console, _call: Call) -> Sequence[Rejected]:
    """Deliveries that were signed and are no event, grouped by reason."""
    with console.engine.connect() as connection:
        return failures.rejected(connection)


@get("/refusals")
def list_refusals(console: Console, call: Call) -> Sequence[Refusal]:
    """The last requests that were refused, a few for each reason."""
    with console.engine.connect() as connection:
        found = refused_requests.newest(connection)
    return event_view.of_refusals(found, masked=masking.applies(console.settings, call.by))


@get("/processors")
def list_processors(console: Console, call: Call) -> Sequence[ProcessorRecord]:
    """The processors and what their jobs are up to."""
    with console.engine.connect() as connection:
        found = processors.all_of_them(connection)
    return event_view.of_processors(found, masked=masking.applies(console.settings, call.by))


@post("/processors/{name:path}/pause", body=Why, errors=_NOT_FOUND)
def pause_processor(console: Console, call: Call) -> Done:
    """Let a processor's jobs wait."""
    console.operations.pause(call.by, call.path["name"], call.body.reason)
    return Done()


@post("/processors/{name:path}/resume", body=Why, errors=_NOT_FOUND)
def resume_processor(console: Console, call: Call) -> Done:
    """Let a processor's jobs go on."""
    console.operations.resume(call.by, call.path["name"], call.body.reason)
    return Done()


@get("/actions", query=PageQuery)
def list_actions(console: Console, call: Call) -> Sequence[Action]:
    """What operators did, newest first."""
    with console.engine.connect() as connection:
        found = audit_log.newest(connection, limit=call.query.limit, before=call.query.before)
    masked = masking.applies(console.settings, call.by)
    return [event_view.of_action(each, masked=masked) for each in found]


@post("/test-event", body=TestWanted, errors=(HTTPStatus.CONFLICT,))
def send_test_event(console: Console, call: Call) -> TestEvent:
    """Post a signed sample to the receiver."""
    return console.operations.send_test_event(call.by, call.body.type, source=call.body.source)


def _begin(
    console: Console, by: Identity, selection: EventFilter, action: str, reason: str | None
) -> Bulk:
    """For one event, which has to be there."""
    with console.engine.connect() as connection:
        event_detail.check(connection, selection.ids[0])
    begun = console.operations.begin(by, selection, action=action, reason=reason)
    return Bulk(counts=begun.counts, operation=begun)


def _selection(console: Console, by: Identity, q: str) -> EventFilter:
    """What a search means; for programs every problem is an error."""
    query = masking.parse(console.settings, by, q, now=console.now())
    if query.problems:
        raise BadRequest(query.problems[0].message, reason="bad_query")
    return query.selection


def _is_everything(console: Console, call: Call) -> bool:
    return _selection(console, call.by, call.body.q).is_everything


def _change(console: Console, call: Call, status: str) -> Operation:
    return console.operations.change(call.by, call.path["id"], status, call.body.reason)


ENDPOINTS: tuple[Endpoint, ...] = (
    read_overview,
    read_stats,
    search_events,
    show_event,
    replay_event,
    discard_event,
    retry_job,
    replay_job,
    discard_job,
    list_replays,
    begin_replay,
    show_replay,
    pause_replay,
    resume_replay,
    cancel_replay,
    list_failures,
    list_rejected,
    list_refusals,
    list_processors,
    pause_processor,
    resume_processor,
    list_actions,
    send_test_event,
)
