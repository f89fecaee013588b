"""The JSON API under /api/v1: its operations, each with its schema."""

from dataclasses import replace
from functools import cache, partial
from http import HTTPStatus
from types import MappingProxyType
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from ingest.console.api import endpoints, lists, openapi
from ingest.console.api.endpoints import ApiRequest, Endpoint, get, post
from ingest.console.api.lists import Listing
from ingest.console.api.models import (
    AlertsQuery,
    AssignInput,
    BulkActionInput,
    DeliveriesQuery,
    EntityInput,
    EntityQuery,
    ErasureInput,
    EventsQuery,
    ExportQuery,
    FailureQuery,
    FailuresQuery,
    LimitsInput,
    MuteInput,
    NoteInput,
    NothingInput,
    OverviewQuery,
    PageQuery,
    ReasonInput,
    RefusalsQuery,
    RefusalSummaryQuery,
    RejectedQuery,
    ReplayInput,
    ResendInput,
    ResolveInput,
    SenderIdQuery,
    TestEventInput,
    TrafficQuery,
    ViewInput,
    ViewNameInput,
)
from ingest.console.api.results import (
    BulkActionResult,
    Done,
    EntityDetails,
    EventList,
    FailureList,
    OverviewNow,
    StatsNow,
    TestedChannel,
)
from ingest.console.auth.identity import Identity
from ingest.console.dependencies import Console
from ingest.console.errors import BadRequest
from ingest.console.services import (
    delivery_view,
    event_query,
    event_view,
    failures,
    processor_detail,
    processor_view,
    ranges,
    refusals,
    saved_views,
    search_words,
    source_view,
    traffic,
)
from ingest.console.services.addresses import EntityLink
from ingest.console.services.commands import RunMade, TestEvent
from ingest.console.services.delivery_view import DeliveryDetails
from ingest.console.services.erasures import Wanted
from ingest.console.services.event_view import EventView
from ingest.console.services.failures import FailureDetails, ListedFailure
from ingest.console.services.processor_detail import ProcessorDetails
from ingest.console.services.processor_view import ProcessorView
from ingest.console.services.ranges import Range
from ingest.console.services.resending import Resent
from ingest.console.services.search_words import SearchWords
from ingest.console.services.source_view import SourceView
from ingest.console.services.traffic import Traffic
from ingest.console.ui import masking
from ingest.console.ui.download import Download
from ingest.erasure.report import Report as Erasure
from ingest.export import MEDIA_TYPES, Form, WantedExport
from ingest.refusals import report as refusal_report
from ingest.refusals.report import ListedRejected, RefusalOfRequest, RefusalSummary
from ingest.store import alerts
from ingest.store.alerts import Alert, ChannelState
from ingest.store.bulk import replay as bulk_actions
from ingest.store.bulk.replay import DISCARD, REPLAY, Operation
from ingest.store.failures.records import Note
from ingest.store.reports import audit_log, event_detail, refused_requests
from ingest.store.reports import failures as failure_reports
from ingest.store.reports.audit_log import Action
from ingest.store.reports.event_detail import DeliveryOfEvent
from ingest.store.reports.failures import Rejected
from ingest.store.reports.refusal_counts import RefusedRequests
from ingest.store.reports.refused_requests import Refusal
from ingest.store.retention import report as retention
from ingest.store.retention.report import Report as Retention
from ingest.store.search import named
from ingest.store.search.filters import EventFilter
from ingest.store.views import View

PREFIX = "/api/v1"
_NOT_FOUND = (HTTPStatus.NOT_FOUND,)
_STORED = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.SERVICE_UNAVAILABLE)
_CONFLICT = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)
EXPORTED = MappingProxyType(
    {
        MEDIA_TYPES[Form.JSON_LINES]: (
            '{"id":"0199c8f0-1f5a-7c3e-9b1d-0a5b6c7d8e9f","source":"shop",'
            '"event_id":"order.created:789","type":"order.created","state":"dead",'
            '"received_at":"2026-11-29T09:52:00Z","deliveries":1,"conflicts":false,'
            '"error":"KeyError: \'total\'"}\n'
        ),
        MEDIA_TYPES[Form.CSV]: (
            "id,source,event_id,type,state,received_at,deliveries,conflicts,error\r\n"
            "0199c8f0-1f5a-7c3e-9b1d-0a5b6c7d8e9f,shop,order.created:789,order.created,dead,"
            "2026-11-29T09:52:00Z,1,false,KeyError: 'total'\r\n"
        ),
    }
)
"""What an export looks like, by its media type."""


def routes(console: Console) -> list[BaseRoute]:
    """Return the API's routes, and the route of its OpenAPI document."""

    async def serve_document(_request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(document, console.version))

    return [
        Route(f"{PREFIX}/openapi.json", serve_document, methods=["GET"], name="openapi"),
        *endpoints.routes(console, ENDPOINTS, prefix=PREFIX),
    ]


@cache
def document(version: str) -> dict[str, Any]:
    """Return the OpenAPI document, which is made when somebody first asks for it."""
    return openapi.document(ENDPOINTS, prefix=PREFIX, version=version)


@get("/overview", query=OverviewQuery)
def get_overview(console: Console, request: ApiRequest) -> OverviewNow:
    """Return the traffic of the last hour, day or week, and the present state."""
    overview = console.overviews.read(request.query.range)
    shown = masking.processors(overview.processors, masked=_masks(console, request))
    return OverviewNow.of(replace(overview, processors=shown), console.overviews.counts())


@get("/traffic", query=TrafficQuery)
def get_traffic(console: Console, request: ApiRequest) -> Traffic:
    """Return what was done or delivered in the last hour, day or week, by what it is split by."""
    with console.engine.connect() as connection:
        return traffic.read(connection, request.query.by, request.query.range, now=console.now())


@get("/stats")
def get_stats(console: Console, _request: ApiRequest) -> StatsNow:
    """Return counts since the beginning, and what is behind now."""
    stats = console.overviews.counts().stats
    return StatsNow(
        deliveries=stats.deliveries,
        events=stats.events,
        jobs=stats.jobs,
        backlog=console.overviews.read(Range.HOUR).backlog,
    )


@get("/events", query=EventsQuery)
def list_events(console: Console, request: ApiRequest) -> EventList:
    """List or search events, the newest or the oldest first."""
    query: EventsQuery = request.query
    bounds, oldest_first = lists.bounds(query.cursor), query.sort == "oldest"
    result = event_query.find(
        console.engine,
        _parse_search(console, request.by, query.q),
        sources=console.sources,
        limit=query.limit,
        before=bounds.before,
        after=bounds.after,
        oldest_first=oldest_first,
    )
    masked = _masks(console, request)
    return EventList.page(result, oldest_first=oldest_first, as_of=console.now(), masked=masked)


@get(
    "/events/export",
    query=ExportQuery,
    errors=(HTTPStatus.CONFLICT,),
    streams=EXPORTED,
)
def export_events(console: Console, request: ApiRequest) -> Response:
    """Export what a search means, as a stream of JSON lines or CSV."""
    query: ExportQuery = request.query
    wanted = WantedExport(
        query=query.q,
        selection=_parse_search(console, request.by, query.q),
        form=query.format,
        oldest_first=query.sort == "oldest",
        with_bodies=query.bodies,
    )
    return Download(console.exports.begin(request.by, wanted))


@get("/views")
def list_views(console: Console, request: ApiRequest) -> Listing[View]:
    """List the saved views by name."""
    views = saved_views.visible(console.engine, console.settings, request.by)
    return Listing[View].of(views, as_of=console.now())


@get("/search-words")
def get_search_words(console: Console, request: ApiRequest) -> SearchWords:
    """Return what can be searched by: the filters, and the values that there are."""
    with console.engine.connect() as connection:
        return search_words.read(connection, masked=_masks(console, request))


@post("/views", body=ViewInput, needs_body=True, errors=(HTTPStatus.CONFLICT,))
def save_view(console: Console, request: ApiRequest) -> View:
    """Keep a search under a name, for all users."""
    body: ViewInput = request.body
    _parse_search(console, request.by, body.q)
    return saved_views.save(
        console.engine,
        request.by,
        name=body.name,
        query=body.q,
        oldest_first=body.sort == "oldest",
    )


@post("/views/{id:number}/rename", body=ViewNameInput, needs_body=True, errors=_CONFLICT)
def rename_view(console: Console, request: ApiRequest) -> View:
    """Give a saved view another name."""
    return saved_views.rename(console.engine, request.by, request.path["id"], request.body.name)


@post("/views/{id:number}/delete", body=NothingInput, errors=_NOT_FOUND)
def delete_view(console: Console, request: ApiRequest) -> Done:
    """Delete a saved view, for everybody."""
    saved_views.delete(console.engine, request.by, request.path["id"])
    return Done()


@get("/events/{id:uuid}", errors=_NOT_FOUND)
def get_event(console: Console, request: ApiRequest) -> EventView:
    """Return an event with its first deliveries, its jobs and their attempts."""
    with console.engine.connect() as connection:
        return _event(console, request, connection, request.path["id"])


@get("/events/by-sender-id", query=SenderIdQuery, errors=_NOT_FOUND)
def get_event_by_sender_id(console: Console, request: ApiRequest) -> EventView:
    """Return the event that a source sent under an id of its own, as `get_event` does."""
    query: SenderIdQuery = request.query
    with console.engine.connect() as connection:
        event = named.at_sender(connection, query.source, query.event_id)
        return _event(console, request, connection, event)


@get("/events/{id:uuid}/deliveries", query=DeliveriesQuery, errors=_NOT_FOUND)
def list_event_deliveries(console: Console, request: ApiRequest) -> Listing[DeliveryOfEvent]:
    """List the deliveries of an event: the one that it was made of, then the duplicates.

    `get_delivery` has what was sent.
    """
    query: DeliveriesQuery = request.query
    with console.engine.connect() as connection:
        deliveries = event_detail.deliveries(
            connection,
            request.path["id"],
            most=query.limit + 1,
            after=lists.bounds(query.cursor).after,
        )
    shown = deliveries[: query.limit]
    has_more = len(deliveries) > len(shown)
    return Listing[DeliveryOfEvent].of(
        shown,
        next_cursor=lists.newer(shown[-1].id) if has_more else None,
        as_of=console.now(),
    )


@get("/deliveries/{id:uuid}", errors=_NOT_FOUND)
def get_delivery(console: Console, request: ApiRequest) -> DeliveryDetails:
    """Return a delivery as it was sent, and which event it is of."""
    with console.engine.connect() as connection:
        return delivery_view.details(
            connection, request.path["id"], masked=_masks(console, request)
        )


@get("/entities/{kind}/{name}", query=EntityQuery, errors=_NOT_FOUND)
def get_entity(console: Console, request: ApiRequest) -> EntityDetails:
    """Return all that is stored of an order, conversation, contact, message or phone number."""
    view = console.entities.read(
        request.path["kind"],
        request.path["name"],
        request.query.place(),
        masked=_masks(console, request),
    )
    return EntityDetails.of(view, as_of=console.now())


@post("/entities", body=EntityInput, needs_body=True)
def find_entity(console: Console, request: ApiRequest) -> EntityLink:
    """Return the address of an entity, which names no person, whatever it is called."""
    body: EntityInput = request.body
    return console.entities.find(body.kind, body.value, masked=_masks(console, request))


@post("/events/{id:uuid}/replay", body=ReplayInput, errors=_CONFLICT)
def replay_event(console: Console, request: ApiRequest) -> BulkActionResult:
    """Replay the jobs of an event that have not succeeded, or all of them."""
    return _begin_for_event(console, request, REPLAY, all_jobs=request.body.all_jobs)


@post("/events/{id:uuid}/resend", body=ResendInput, needs_body=True, errors=_STORED)
def resend_event(console: Console, request: ApiRequest) -> Resent:
    """Send an event with an edited body, as an event of the source `operator`."""
    body: ResendInput = request.body
    event = request.path["id"]
    if body.dry_run:
        preview = console.resending.preview(event, body.body)
        return Resent(preview=preview, event=None, is_new=False)
    return console.resending.send(
        request.by, event, body.body, number=body.number or uuid4(), reason=body.reason
    )


@post("/events/{id:uuid}/discard", body=ReasonInput, errors=_NOT_FOUND)
def discard_event(console: Console, request: ApiRequest) -> BulkActionResult:
    """Discard an event's waiting and dead jobs."""
    return _begin_for_event(console, request, DISCARD)


@post("/jobs/{id:number}/retry", body=ReasonInput, errors=_CONFLICT)
def retry_job(console: Console, request: ApiRequest) -> Done:
    """Run a waiting job now, or replay a dead one."""
    console.commands.retry_now(request.by, request.path["id"], request.body.reason)
    return Done()


@post("/jobs/{id:number}/replay", body=ReasonInput, errors=_NOT_FOUND)
def replay_job(console: Console, request: ApiRequest) -> Operation:
    """Replay one job."""
    return console.commands.replay_job(request.by, request.path["id"], request.body.reason)


@post("/jobs/{id:number}/discard", body=ReasonInput, errors=_NOT_FOUND)
def discard_job(console: Console, request: ApiRequest) -> Operation:
    """Discard one job."""
    return console.commands.discard_job(request.by, request.path["id"], request.body.reason)


@get("/bulk-actions", query=PageQuery)
def list_bulk_actions(console: Console, request: ApiRequest) -> Listing[Operation]:
    """List bulk actions, newest first."""
    limit, before = request.query.limit, lists.number(request.query.cursor)
    with console.engine.connect() as connection:
        records = bulk_actions.operations(connection, limit=limit + 1, before=before)
    masked = _masks(console, request)
    return Listing[Operation].of(
        (masking.bulk_action(record, masked=masked) for record in records[:limit]),
        next_cursor=lists.after_numbered(records, limit=limit),
        as_of=console.now(),
    )


@post("/bulk-actions", body=BulkActionInput, needs_body=True)
def begin_bulk_action(console: Console, request: ApiRequest) -> BulkActionResult:
    """Replay or discard events by their ids, or all that match a search."""
    body: BulkActionInput = request.body
    selection = _selection(console, request.by, body)
    if body.dry_run:
        counts = console.commands.preview(selection, body.action, all_jobs=body.all_jobs)
        return BulkActionResult(counts=counts, bulk_action=None)
    begun = console.commands.begin(
        request.by,
        selection,
        action=body.action,
        reason=body.reason,
        rate=body.rate,
        all_jobs=body.all_jobs,
    )
    return BulkActionResult(counts=begun.counts, bulk_action=begun)


@get("/bulk-actions/{id:number}", errors=_NOT_FOUND)
def get_bulk_action(console: Console, request: ApiRequest) -> Operation:
    """Return a bulk action, and what has become of its jobs."""
    with console.engine.connect() as connection:
        record = bulk_actions.operation(connection, request.path["id"])
    return masking.bulk_action(record, masked=_masks(console, request))


@post("/bulk-actions/{id:number}/pause", body=ReasonInput, errors=_CONFLICT)
def pause_bulk_action(console: Console, request: ApiRequest) -> Operation:
    """Pause a bulk action: jobs that have not begun become what they were before."""
    return _change(console, request, "paused")


@post("/bulk-actions/{id:number}/resume", body=ReasonInput, errors=_CONFLICT)
def resume_bulk_action(console: Console, request: ApiRequest) -> Operation:
    """Resume a bulk action where it stopped. No job that has run runs again."""
    return _change(console, request, "running")


@post("/bulk-actions/{id:number}/cancel", body=ReasonInput, errors=_CONFLICT)
def cancel_bulk_action(console: Console, request: ApiRequest) -> Operation:
    """Cancel a bulk action: jobs that have not begun become what they were before."""
    return _change(console, request, "cancelled")


@get("/failures", query=FailuresQuery)
def list_failures(console: Console, request: ApiRequest) -> FailureList:
    """List groups of failures, the open ones unless another state is asked for.

    A group is what fails in one way. Its `query` finds, exports and replays the events that fail so
    now.
    """
    query: FailuresQuery = request.query
    now, masked = console.now(), _masks(console, request)
    with console.engine.connect() as connection:
        shown = failures.listed(
            connection, query.wanted(), sources=console.sources, now=now, masked=masked
        )
    return FailureList(
        items=shown.groups,
        next_cursor=None,
        as_of=now,
        counts=shown.counts,
        examined=shown.examined,
        is_whole=shown.is_whole,
    )


@get("/failures/{id:number}", query=FailureQuery, errors=_NOT_FOUND)
def get_failure(console: Console, request: ApiRequest) -> FailureDetails:
    """Return a group of failures with its newest error, releases, notes, events and history."""
    with console.engine.connect() as connection:
        return failures.details(
            connection,
            request.path["id"],
            request.query.range,
            sources=console.sources,
            now=console.now(),
            masked=_masks(console, request),
        )


@post("/failures/{id:number}/acknowledge", body=ReasonInput, errors=_NOT_FOUND)
def acknowledge_failure(console: Console, request: ApiRequest) -> ListedFailure:
    """Say that somebody looks after a failure."""
    console.failure_changes.acknowledge(request.by, request.path["id"], request.body.reason)
    return _failure(console, request)


@post("/failures/{id:number}/resolve", body=ResolveInput, errors=_NOT_FOUND)
def resolve_failure(console: Console, request: ApiRequest) -> ListedFailure:
    """Say that a failure is mended: if it returns, it is opened, and an alert tells.

    With `when_succeeded` it stays open until none of its jobs fails or is to be repeated.
    """
    body: ResolveInput = request.body
    console.failure_changes.resolve(
        request.by,
        request.path["id"],
        body.reason,
        in_release=body.in_release,
        when_succeeded=body.when_succeeded,
    )
    return _failure(console, request)


@post("/failures/{id:number}/mute", body=MuteInput, errors=_NOT_FOUND)
def mute_failure(console: Console, request: ApiRequest) -> ListedFailure:
    """Take a failure from the list: until a time, until it happened so often, or for ever."""
    body: MuteInput = request.body
    console.failure_changes.mute(
        request.by,
        request.path["id"],
        body.reason,
        now=console.now(),
        until=body.until,
        times=body.times,
    )
    return _failure(console, request)


@post("/failures/{id:number}/reopen", body=ReasonInput, errors=_NOT_FOUND)
def reopen_failure(console: Console, request: ApiRequest) -> ListedFailure:
    """Say that a failure is not mended, muted or looked after."""
    console.failure_changes.reopen(request.by, request.path["id"], request.body.reason)
    return _failure(console, request)


@post("/failures/{id:number}/assign", body=AssignInput, errors=_NOT_FOUND)
def assign_failure(console: Console, request: ApiRequest) -> ListedFailure:
    """Give a failure to somebody, or to nobody."""
    body: AssignInput = request.body
    console.failure_changes.assign(request.by, request.path["id"], body.to, body.reason)
    return _failure(console, request)


@post("/failures/{id:number}/note", body=NoteInput, needs_body=True, errors=_NOT_FOUND)
def note_failure(console: Console, request: ApiRequest) -> Note:
    """Keep a note about a failure."""
    return console.failure_changes.note(request.by, request.path["id"], request.body.text)


@get("/rejected")
def list_rejection_reasons(console: Console, _request: ApiRequest) -> Listing[Rejected]:
    """List authentic deliveries that hold no event, grouped by reason."""
    with console.engine.connect() as connection:
        groups = failure_reports.rejected(connection)
    return Listing[Rejected].of(groups, as_of=console.now())


@get("/refusals", query=RefusalsQuery)
def list_refusals(console: Console, request: ApiRequest) -> Listing[RefusedRequests]:
    """List refused requests, the newest first: a row for those of a minute that are alike."""
    query: RefusalsQuery = request.query
    wanted = refusals.wanted(query.asked(query.address), console.now())
    with console.engine.connect() as connection:
        page = refusal_report.page(connection, wanted, limit=query.limit, before=query.cursor)
    return Listing[RefusedRequests].of(page.refusals, next_cursor=page.older, as_of=console.now())


@get("/refusals/summary", query=RefusalSummaryQuery)
def get_refusal_summary(console: Console, request: ApiRequest) -> RefusalSummary:
    """Return why requests were refused, by reason and by address, with the likely causes."""
    query: RefusalSummaryQuery = request.query
    now = console.now()
    wanted = refusals.wanted(query.asked(query.address), now)
    with console.engine.connect() as connection:
        return refusal_report.summary(
            connection, wanted, console.sources, now=now, show=_show_samples(console, request)
        )


@get("/refusals/samples")
def list_refused_samples(console: Console, request: ApiRequest) -> Listing[Refusal]:
    """List the last refused requests, a few for each reason, with what was looked at."""
    with console.engine.connect() as connection:
        samples = refused_requests.newest(connection)
    shown = masking.refusals(samples, masked=_masks(console, request))
    return Listing[Refusal].of(shown, as_of=console.now())


@get("/refusals/{id:uuid}", errors=_NOT_FOUND)
def get_refusal(console: Console, request: ApiRequest) -> RefusalOfRequest:
    """Return why a request was refused, by the id in its answer: `request_id`."""
    with console.engine.connect() as connection:
        return refusal_report.of_request(
            connection,
            request.path["id"],
            console.sources,
            now=console.now(),
            show=_show_samples(console, request),
        )


@get("/deliveries", query=RejectedQuery)
def list_rejected_deliveries(console: Console, request: ApiRequest) -> Listing[ListedRejected]:
    """List deliveries that were signed and hold no event, the newest first.

    A page may be short, or empty, and have a next one: 5,000 deliveries at most are looked at for
    each.
    """
    query: RejectedQuery = request.query
    now = console.now()
    with console.engine.connect() as connection:
        page = refusal_report.rejected_page(
            connection,
            refusal_report.of_rejected(refusals.wanted(query.asked(), now)),
            limit=query.limit,
            before=lists.bounds(query.cursor).before,
            now=now,
        )
    return Listing[ListedRejected].of(
        page.deliveries, next_cursor=lists.older(page.older), as_of=now
    )


@get("/processors", query=OverviewQuery)
def list_processors(console: Console, request: ApiRequest) -> Listing[ProcessorView]:
    """List processors by name: their unfinished jobs, and their rates and times in a period."""
    now, masked = console.now(), _masks(console, request)
    with console.engine.connect() as connection:
        shown = processor_view.read(
            connection,
            request.query.range,
            destinations=console.destinations,
            now=now,
            masked=masked,
        )
    return Listing[ProcessorView].of(shown.views, as_of=now)


@get("/sources")
def list_sources(console: Console, _request: ApiRequest) -> Listing[SourceView]:
    """List the sources that have a key, or had one lately, and how much each key is used."""
    now = console.now()
    with console.engine.connect() as connection:
        views = source_view.read(connection, console.sources, now=now)
    return Listing[SourceView].of(views, as_of=now)


@post("/processors/{name:path}/pause", body=ReasonInput, errors=_NOT_FOUND)
def pause_processor(console: Console, request: ApiRequest) -> Done:
    """Pause a processor: its jobs wait."""
    console.commands.pause(request.by, request.path["name"], request.body.reason)
    return Done()


@post("/processors/{name:path}/resume", body=ReasonInput, errors=_NOT_FOUND)
def resume_processor(console: Console, request: ApiRequest) -> Done:
    """Resume a processor: its jobs run again."""
    console.commands.resume(request.by, request.path["name"], request.body.reason)
    return Done()


@post("/processors/{name:path}/limits", body=LimitsInput, errors=_CONFLICT)
def set_limits(console: Console, request: ApiRequest) -> Done:
    """Set limits of a processor that declares some, for the next jobs on.

    What is null is as its workers declare it. So `{}` goes back to all that is declared.
    """
    body: LimitsInput = request.body
    console.commands.set_limits(request.by, request.path["name"], body.values, body.reason)
    return Done()


@post("/processors/{name:path}/run", body=ReasonInput, errors=_CONFLICT)
def run_processor(console: Console, request: ApiRequest) -> RunMade:
    """Run a periodic processor now, whatever its schedule says."""
    return console.commands.run_processor(request.by, request.path["name"], request.body.reason)


@post("/processors/{name:path}/close", body=ReasonInput, errors=_CONFLICT)
def close_breaker(console: Console, request: ApiRequest) -> Done:
    """Close the open breaker of a processor: all its jobs run."""
    console.commands.close_breaker(request.by, request.path["name"], request.body.reason)
    return Done()


@post("/processors/{name:path}/probe", body=ReasonInput, errors=_CONFLICT)
def probe_processor(console: Console, request: ApiRequest) -> Done:
    """Probe the target of a processor whose breaker is open now, with one of its jobs."""
    console.commands.probe(request.by, request.path["name"], request.body.reason)
    return Done()


@get("/processors/{name:path}", query=OverviewQuery, errors=_NOT_FOUND)
def get_processor(console: Console, request: ApiRequest) -> ProcessorDetails:
    """Return all about a processor: what it is, what it did in a period, and what is left to do."""
    now, masked = console.now(), _masks(console, request)
    window = ranges.window(request.query.range, now)
    with console.engine.connect() as connection:
        return processor_detail.read(
            connection,
            request.path["name"],
            window,
            destinations=console.destinations,
            now=now,
            masked=masked,
        )


@get("/alerts", query=AlertsQuery)
def list_alerts(console: Console, request: ApiRequest) -> Listing[Alert]:
    """List the alerts that have fired: those that fire, then recovered ones."""
    with console.engine.connect() as connection:
        newest = alerts.newest(
            connection, recovered=request.query.recovered, limit=request.query.limit
        )
    return Listing[Alert].of(newest, as_of=console.now())


@post("/alerts/{id:number}/acknowledge", body=ReasonInput, errors=_NOT_FOUND)
def acknowledge_alert(console: Console, request: ApiRequest) -> Alert:
    """Acknowledge an alert: it is not told again unless it grows."""
    return console.commands.acknowledge(request.by, request.path["id"], request.body.reason)


@post("/alerts/{id:number}/unacknowledge", body=ReasonInput, errors=_NOT_FOUND)
def unacknowledge_alert(console: Console, request: ApiRequest) -> Alert:
    """Take the acknowledgement of an alert back: it is told again as before."""
    return console.commands.unacknowledge(request.by, request.path["id"], request.body.reason)


@get("/alert-channels")
def list_alert_channels(console: Console, _request: ApiRequest) -> Listing[ChannelState]:
    """List the channels that have had messages lately, and what became of those."""
    with console.engine.connect() as connection:
        states = alerts.channel_states(connection)
    return Listing[ChannelState].of(states.values(), as_of=console.now())


@post("/alert-channels/{name:path}/test", body=ReasonInput, errors=_CONFLICT)
def test_alert_channel(console: Console, request: ApiRequest) -> TestedChannel:
    """Send a test message by a channel, and return what came back."""
    answer = console.commands.test_channel(request.by, request.path["name"])
    return TestedChannel(answer=answer)


@get("/retention")
def get_retention(console: Console, _request: ApiRequest) -> Retention:
    """Return what goes at which age, what has gone, and what would go now."""
    settings = console.settings
    with console.engine.connect() as connection:
        return retention.read(
            connection,
            settings.ages,
            body_age_days=settings.body_retention_days,
            now=console.now(),
        )


@get("/erasures", query=PageQuery)
def list_erasures(console: Console, request: ApiRequest) -> Listing[Erasure]:
    """List the requests to erase a person, newest first."""
    limit, before = request.query.limit, lists.number(request.query.cursor)
    records = console.erasures.newest(limit=limit + 1, before=before)
    return Listing[Erasure].of(
        records[:limit],
        next_cursor=lists.after_numbered(records, limit=limit),
        as_of=console.now(),
    )


@post("/erasures", body=ErasureInput, needs_body=True)
def order_erasure(console: Console, request: ApiRequest) -> Erasure:
    """Begin to search for a person who is to be erased, and erase nobody yet."""
    body: ErasureInput = request.body
    wanted = Wanted(
        phones=body.phones,
        contacts=body.contacts,
        conversations=body.conversations,
        source=body.source,
        reason=body.reason,
    )
    return console.erasures.order(request.by, wanted)


@get("/erasures/{id:number}", errors=_NOT_FOUND)
def get_erasure(console: Console, request: ApiRequest) -> Erasure:
    """Return a request to erase a person: what was found or erased, and its progress."""
    return console.erasures.read(request.path["id"])


@post("/erasures/{id:number}/erase", body=NothingInput, errors=_CONFLICT)
def erase_person(console: Console, request: ApiRequest) -> Erasure:
    """Erase the person whom a request has found. That cannot be undone."""
    return console.erasures.erase(request.by, request.path["id"])


@post("/erasures/{id:number}/cancel", body=NothingInput, errors=_CONFLICT)
def cancel_erasure(console: Console, request: ApiRequest) -> Erasure:
    """Cancel a request that was not confirmed: nobody is erased."""
    return console.erasures.cancel(request.by, request.path["id"])


@post("/erasures/{id:number}/continue", body=NothingInput, errors=_NOT_FOUND)
def continue_erasure(console: Console, request: ApiRequest) -> Erasure:
    """Go on with an erasure that a command began and left."""
    return console.erasures.resume(request.by, request.path["id"])


@get("/audit-log", query=PageQuery)
def list_audit_log(console: Console, request: ApiRequest) -> Listing[Action]:
    """List what operators did, newest first."""
    limit, before = request.query.limit, lists.number(request.query.cursor)
    with console.engine.connect() as connection:
        records = audit_log.newest(connection, limit=limit + 1, before=before)
    masked = _masks(console, request)
    return Listing[Action].of(
        (masking.action(record, masked=masked) for record in records[:limit]),
        next_cursor=lists.after_numbered(records, limit=limit),
        as_of=console.now(),
    )


@post("/test-event", body=TestEventInput, errors=(HTTPStatus.CONFLICT,))
def send_test_event(console: Console, request: ApiRequest) -> TestEvent:
    """Send a signed sample to the receiver."""
    body: TestEventInput = request.body
    return console.commands.send_test_event(request.by, body.type, source=body.source)


def _masks(console: Console, request: ApiRequest) -> bool:
    return masking.applies(console.settings, request.by)


def _show_samples(console: Console, request: ApiRequest) -> refusal_report.Show:
    return partial(masking.refusals, masked=_masks(console, request))


def _event(console: Console, request: ApiRequest, connection: Connection, event: UUID) -> EventView:
    """Return an event as whoever asks may see it. Raises NotFound."""
    masked = _masks(console, request)
    return event_view.read(
        connection,
        event,
        sources=console.sources,
        masked=masked,
        entities=partial(console.entities.of_event, masked=masked),
    )


def _failure(console: Console, request: ApiRequest) -> ListedFailure:
    """Return the group of failures that a request names. Raises NotFound."""
    with console.engine.connect() as connection:
        return failures.one(
            connection,
            request.path["id"],
            sources=console.sources,
            now=console.now(),
            masked=_masks(console, request),
        )


def _begin_for_event(
    console: Console, request: ApiRequest, action: str, *, all_jobs: bool = False
) -> BulkActionResult:
    """Begin a bulk action for one event. Raises NotFound and NotPossible."""
    event = request.path["id"]
    with console.engine.connect() as connection:
        event_detail.check(connection, event)
    begun = console.commands.begin(
        request.by,
        EventFilter(ids=(event,)),
        action=action,
        reason=request.body.reason,
        all_jobs=all_jobs,
    )
    return BulkActionResult(counts=begun.counts, bulk_action=begun)


def _selection(console: Console, by: Identity, body: BulkActionInput) -> EventFilter:
    """Return what a body selects.

    Raises:
        BadRequest: it selects nothing, or in two ways, or its search is not understood.
    """
    if body.ids and body.q:
        raise BadRequest("Set ids or q, not both.", reason="bad_body")
    if body.ids:
        return EventFilter(ids=tuple(body.ids))
    selection = _parse_search(console, by, body.q)
    if selection.is_everything and not body.everything:
        raise BadRequest(
            "Set ids or q, or everything to select all dead letters.", reason="nothing_selected"
        )
    return selection


def _parse_search(console: Console, by: Identity, q: str) -> EventFilter:
    """Return what a search selects. Every problem is an error, since programs read no hints."""
    query = masking.parse(console.settings, by, q, now=console.now())
    if query.problems:
        raise BadRequest(query.problems[0].message, reason="bad_query")
    return query.selection


def _change(console: Console, request: ApiRequest, status: str) -> Operation:
    number, reason = request.path["id"], request.body.reason
    return console.commands.change(request.by, number, status, reason)


ENDPOINTS: tuple[Endpoint, ...] = (
    get_overview,
    get_traffic,
    get_stats,
    list_events,
    export_events,
    list_views,
    get_search_words,
    save_view,
    rename_view,
    delete_view,
    get_event,
    get_event_by_sender_id,
    list_event_deliveries,
    get_delivery,
    get_entity,
    find_entity,
    replay_event,
    resend_event,
    discard_event,
    retry_job,
    replay_job,
    discard_job,
    list_bulk_actions,
    begin_bulk_action,
    get_bulk_action,
    pause_bulk_action,
    resume_bulk_action,
    cancel_bulk_action,
    list_failures,
    get_failure,
    acknowledge_failure,
    resolve_failure,
    mute_failure,
    reopen_failure,
    assign_failure,
    note_failure,
    list_rejection_reasons,
    list_refusals,
    get_refusal_summary,
    list_refused_samples,
    get_refusal,
    list_rejected_deliveries,
    list_processors,
    list_sources,
    pause_processor,
    resume_processor,
    set_limits,
    run_processor,
    close_breaker,
    probe_processor,
    get_processor,  # its names hold slashes, so the paths above go first
    list_alerts,
    acknowledge_alert,
    unacknowledge_alert,
    list_alert_channels,
    test_alert_channel,
    get_retention,
    list_erasures,
    order_erasure,
    get_erasure,
    erase_person,
    cancel_erasure,
    continue_erasure,
    list_audit_log,
    send_test_event,
)
