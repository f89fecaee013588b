"""The JSON API under /api/v1: its operations, each with its schema."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from ingest.console.api import endpoints, openapi
from ingest.console.api.endpoints import ApiRequest, Endpoint, get, post
from ingest.console.api.models import (
    AlertsQuery,
    BulkActionInput,
    BulkActionResult,
    DeliveriesQuery,
    Done,
    EntityInput,
    EntityQuery,
    ErasureInput,
    EventPage,
    EventsQuery,
    ExportQuery,
    NothingInput,
    OverviewQuery,
    PageQuery,
    ReasonInput,
    RefusalsQuery,
    RefusalSummaryQuery,
    ReplayInput,
    ResendInput,
    StatsNow,
    TestedChannel,
    TestEventInput,
    TrafficQuery,
    ViewInput,
    ViewNameInput,
)
from ingest.console.auth.identity import Identity
from ingest.console.dependencies import Console
from ingest.console.errors import BadRequest
from ingest.console.services import event_query, event_view, refusals, saved_views, traffic
from ingest.console.services.addresses import EntityLink
from ingest.console.services.commands import TestEvent
from ingest.console.services.entity_view import EntityView
from ingest.console.services.erasures import Wanted
from ingest.console.services.event_view import EventView
from ingest.console.services.overview import Overview
from ingest.console.services.ranges import Range
from ingest.console.services.resending import Resent
from ingest.console.services.traffic import Traffic
from ingest.console.ui import masking
from ingest.console.ui.download import Download
from ingest.erasure.report import Report as Erasure
from ingest.export import MEDIA_TYPES, WantedExport
from ingest.refusals import report as refusal_report
from ingest.refusals.report import (
    RefusalOfRequest,
    RefusalPage,
    RefusalSummary,
    RejectedListing,
)
from ingest.store import alerts
from ingest.store.alerts import Alert, ChannelState
from ingest.store.bulk import replay as bulk_actions
from ingest.store.bulk.replay import DISCARD, REPLAY, Operation
from ingest.store.pipeline import processors
from ingest.store.pipeline.processors import ProcessorRecord
from ingest.store.reports import audit_log, event_detail, failures, refused_requests
from ingest.store.reports.audit_log import Action
from ingest.store.reports.failures import Failures, Rejected
from ingest.store.reports.refused_requests import Refusal
from ingest.store.retention import report as retention
from ingest.store.retention.report import Report as Retention
from ingest.store.search.filters import EventFilter
from ingest.store.search.titles import titled_examples
from ingest.store.views import View

PREFIX = "/api/v1"
_NOT_FOUND = (HTTPStatus.NOT_FOUND,)
_STORED = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.SERVICE_UNAVAILABLE)
_CONFLICT = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)


def routes(console: Console) -> list[BaseRoute]:
    """Return the API's routes, and the route of its OpenAPI document."""
    document = openapi.document(ENDPOINTS, prefix=PREFIX, version=console.version)

    async def serve_document(_request: Request) -> Response:
        return JSONResponse(document)

    return [
        Route(f"{PREFIX}/openapi.json", serve_document, methods=["GET"], name="openapi"),
        *endpoints.routes(console, ENDPOINTS, prefix=PREFIX),
    ]


@get("/overview", query=OverviewQuery)
def read_overview(console: Console, request: ApiRequest) -> Overview:
    """Return the traffic of the last hour, day or week, and the present state."""
    overview = console.overviews.read(request.query.range)
    shown = masking.processors(overview.processors, masked=_masks(console, request))
    return replace(overview, processors=shown)


@get("/traffic", query=TrafficQuery)
def read_traffic(console: Console, request: ApiRequest) -> Traffic:
    """Return what was done or delivered in the last hour, day or week, by what it is split by."""
    with console.engine.connect() as connection:
        return traffic.read(connection, request.query.by, request.query.range, now=console.now())


@get("/stats")
def read_stats(console: Console, _request: ApiRequest) -> StatsNow:
    """Return counts since the beginning, and what is behind now."""
    overview = console.overviews.read(Range.HOUR)
    stats = overview.stats
    return StatsNow(
        deliveries=stats.deliveries,
        events=stats.events,
        jobs=stats.jobs,
        backlog=overview.backlog,
    )


@get("/events", query=EventsQuery)
def search_events(console: Console, request: ApiRequest) -> EventPage:
    """Search events, the newest or the oldest first."""
    result = event_query.find(
        console.engine,
        _parse_search(console, request.by, request.query.q),
        sources=console.sources,
        limit=request.query.limit,
        before=request.query.before,
        after=request.query.after,
        oldest_first=request.query.sort == "oldest",
    )
    page = result.page
    return EventPage(
        events=masking.events((*page.named, *page.events), masked=_masks(console, request)),
        older=page.older,
        newer=page.newer,
        searched_to=page.reached.isoformat() if page.reached else None,
        count=result.count,
    )


@get(
    "/events/export",
    query=ExportQuery,
    errors=(HTTPStatus.CONFLICT,),
    streams=tuple(MEDIA_TYPES.values()),
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
def list_views(console: Console, request: ApiRequest) -> Sequence[View]:
    """List the saved views by name."""
    return saved_views.visible(console.engine, console.settings, request.by)


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
def show_event(console: Console, request: ApiRequest) -> EventView:
    """Return an event with its deliveries, jobs and attempts."""
    masked = _masks(console, request)
    with console.engine.connect() as connection:
        return event_view.read(
            connection,
            request.path["id"],
            sources=console.sources,
            masked=masked,
            entities=partial(console.entities.of_event, masked=masked),
        )


@get("/entities/{kind}/{name}", query=EntityQuery, errors=_NOT_FOUND)
def show_entity(console: Console, request: ApiRequest) -> EntityView:
    """Return all that is stored of an order, conversation, contact, message or phone number."""
    return console.entities.read(
        request.path["kind"],
        request.path["name"],
        request.query.place(),
        masked=_masks(console, request),
    )


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
def list_bulk_actions(console: Console, request: ApiRequest) -> Sequence[Operation]:
    """List bulk actions, newest first."""
    limit, before = request.query.limit, request.query.before
    with console.engine.connect() as connection:
        records = bulk_actions.operations(connection, limit=limit, before=before)
    masked = _masks(console, request)
    return [masking.bulk_action(record, masked=masked) for record in records]


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
def show_bulk_action(console: Console, request: ApiRequest) -> Operation:
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


@get("/failures")
def list_failures(console: Console, request: ApiRequest) -> Failures:
    """List failing jobs, grouped by error."""
    with console.engine.connect() as connection:
        groups = titled_examples(
            connection, failures.groups(connection, now=console.now()), console.sources
        )
    return masking.failures(groups, masked=_masks(console, request))


@get("/rejected")
def list_rejected(console: Console, _request: ApiRequest) -> Sequence[Rejected]:
    """List authentic deliveries that hold no event, grouped by reason."""
    with console.engine.connect() as connection:
        return failures.rejected(connection)


@get("/refusals", query=RefusalsQuery)
def list_refusals(console: Console, request: ApiRequest) -> RefusalPage:
    """List refused requests, the newest first: a row for those of a minute that are alike."""
    query: RefusalsQuery = request.query
    wanted = refusals.wanted(query.asked(query.address), console.now())
    with console.engine.connect() as connection:
        return refusal_report.page(connection, wanted, limit=query.limit, before=query.before)


@get("/refusals/summary", query=RefusalSummaryQuery)
def summarize_refusals(console: Console, request: ApiRequest) -> RefusalSummary:
    """Say why requests were refused, by reason and by address, with the likely causes."""
    query: RefusalSummaryQuery = request.query
    now = console.now()
    wanted = refusals.wanted(query.asked(query.address), now)
    with console.engine.connect() as connection:
        return refusal_report.summary(
            connection, wanted, console.sources, now=now, show=_show_samples(console, request)
        )


@get("/refusals/samples")
def list_refused_samples(console: Console, request: ApiRequest) -> Sequence[Refusal]:
    """List the last refused requests, a few for each reason, with what was looked at."""
    with console.engine.connect() as connection:
        samples = refused_requests.newest(connection)
    return masking.refusals(samples, masked=_masks(console, request))


@get("/refusals/{id:uuid}", errors=_NOT_FOUND)
def show_refusal(console: Console, request: ApiRequest) -> RefusalOfRequest:
    """Say why a request was refused, by the id that its sender got: `request_id` in the answer."""
    with console.engine.connect() as connection:
        return refusal_report.of_request(
            connection,
            request.path["id"],
            console.sources,
            now=console.now(),
            show=_show_samples(console, request),
        )


@get("/deliveries", query=DeliveriesQuery)
def list_deliveries(console: Console, request: ApiRequest) -> RejectedListing:
    """List deliveries that were signed and hold no event, the newest first."""
    query: DeliveriesQuery = request.query
    now = console.now()
    with console.engine.connect() as connection:
        return refusal_report.rejected_page(
            connection,
            refusal_report.of_rejected(refusals.wanted(query.asked(), now)),
            limit=query.limit,
            before=query.before,
            now=now,
        )


@get("/processors")
def list_processors(console: Console, request: ApiRequest) -> Sequence[ProcessorRecord]:
    """List processors with the number of their unfinished jobs."""
    with console.engine.connect() as connection:
        records = processors.all_of_them(connection)
    return masking.processors(records, masked=_masks(console, request))


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


@get("/alerts", query=AlertsQuery)
def list_alerts(console: Console, request: ApiRequest) -> Sequence[Alert]:
    """List the alerts that have fired: those that fire, then recovered ones."""
    with console.engine.connect() as connection:
        return alerts.newest(
            connection, recovered=request.query.recovered, limit=request.query.limit
        )


@post("/alerts/{id:number}/acknowledge", body=ReasonInput, errors=_NOT_FOUND)
def acknowledge_alert(console: Console, request: ApiRequest) -> Alert:
    """Acknowledge an alert: it is not told again unless it grows."""
    return console.commands.acknowledge(request.by, request.path["id"], request.body.reason)


@post("/alerts/{id:number}/unacknowledge", body=ReasonInput, errors=_NOT_FOUND)
def unacknowledge_alert(console: Console, request: ApiRequest) -> Alert:
    """Take the acknowledgement of an alert back: it is told again as before."""
    return console.commands.unacknowledge(request.by, request.path["id"], request.body.reason)


@get("/alert-channels")
def list_alert_channels(console: Console, _request: ApiRequest) -> Sequence[ChannelState]:
    """List the channels that have had messages lately, and what became of those."""
    with console.engine.connect() as connection:
        return list(alerts.channel_states(connection).values())


@post("/alert-channels/{name:path}/test", body=ReasonInput, errors=_CONFLICT)
def test_alert_channel(console: Console, request: ApiRequest) -> TestedChannel:
    """Send a test message by a channel, and return what came back."""
    answer = console.commands.test_channel(request.by, request.path["name"])
    return TestedChannel(answer=answer)


@get("/retention")
def read_retention(console: Console, _request: ApiRequest) -> Retention:
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
def list_erasures(console: Console, request: ApiRequest) -> Sequence[Erasure]:
    """List the requests to erase a person, newest first."""
    return console.erasures.newest(limit=request.query.limit, before=request.query.before)


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
def show_erasure(console: Console, request: ApiRequest) -> Erasure:
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
def list_audit_log(console: Console, request: ApiRequest) -> Sequence[Action]:
    """List what operators did, newest first."""
    limit, before = request.query.limit, request.query.before
    with console.engine.connect() as connection:
        records = audit_log.newest(connection, limit=limit, before=before)
    masked = _masks(console, request)
    return [masking.action(record, masked=masked) for record in records]


@post("/test-event", body=TestEventInput, errors=(HTTPStatus.CONFLICT,))
def send_test_event(console: Console, request: ApiRequest) -> TestEvent:
    """Send a signed sample to the receiver."""
    body: TestEventInput = request.body
    return console.commands.send_test_event(request.by, body.type, source=body.source)


def _masks(console: Console, request: ApiRequest) -> bool:
    return masking.applies(console.settings, request.by)


def _show_samples(console: Console, request: ApiRequest) -> refusal_report.Show:
    return partial(masking.refusals, masked=_masks(console, request))


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
    read_overview,
    read_traffic,
    read_stats,
    search_events,
    export_events,
    list_views,
    save_view,
    rename_view,
    delete_view,
    show_event,
    show_entity,
    find_entity,
    replay_event,
    resend_event,
    discard_event,
    retry_job,
    replay_job,
    discard_job,
    list_bulk_actions,
    begin_bulk_action,
    show_bulk_action,
    pause_bulk_action,
    resume_bulk_action,
    cancel_bulk_action,
    list_failures,
    list_rejected,
    list_refusals,
    summarize_refusals,
    list_refused_samples,
    show_refusal,
    list_deliveries,
    list_processors,
    pause_processor,
    resume_processor,
    list_alerts,
    acknowledge_alert,
    unacknowledge_alert,
    list_alert_channels,
    test_alert_channel,
    read_retention,
    list_erasures,
    order_erasure,
    show_erasure,
    erase_person,
    cancel_erasure,
    continue_erasure,
    list_audit_log,
    send_test_event,
)
