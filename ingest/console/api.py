"""The JSON API under /api/v1: every endpoint declared once, for the router and for its document."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from ingest import telemetry
from ingest.console import finding, forms, masking, openapi, problems, views
from ingest.console.auth.identity import Identity
from ingest.console.context import LONGEST_QUERY, PAGE, Console
from ingest.console.errors import BadRequest
from ingest.console.operations import TestEvent
from ingest.console.overview import Overview, Range
from ingest.console.views import EventView
from ingest.sources import awalchat_samples
from ingest.store import actions, failures, history, processors, refusals, replay
from ingest.store.actions import Action
from ingest.store.counting import Count
from ingest.store.failures import Failures, Rejected
from ingest.store.listing import ListedEvent
from ingest.store.processors import ProcessorRecord
from ingest.store.refusals import Refusal
from ingest.store.replay import Counts, Operation
from ingest.store.selection import Selection
from ingest.store.stats import Stats

PREFIX = "/api/v1"
_MOST = 200
_IDS = 1_000
_LARGEST_ID = 2**63 - 1

log = telemetry.logger(__name__)


class _Given(BaseModel):
    """What a request brings; what is not asked for is refused."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


_Text = Annotated[str, Field(max_length=LONGEST_QUERY, pattern=r"^[^\x00]*$")]
_Reason = Annotated[str | None, Field(max_length=500, pattern=r"^[^\x00]*$")]


class EventsQuery(_Given):
    """Which events, and which page of them."""

    q: _Text = Field("", description="what to search for, in the syntax of the console's search")
    limit: int = Field(PAGE, ge=1, le=_MOST)
    before: UUID | None = Field(None, description="only events older than this one")
    after: UUID | None = Field(None, description="only events newer than this one")


class OverviewQuery(_Given):
    """How far to look back."""

    range: Range = Range.HOUR


class PageQuery(_Given):
    """Which page."""

    limit: int = Field(PAGE, ge=1, le=_MOST)
    before: int | None = Field(None, ge=1, le=_LARGEST_ID)


class Why(_Given):
    """Why it is done; kept for good."""

    reason: _Reason = None


_SOME_IDS: dict[str, Any] = {"required": ["ids"], "properties": {"ids": {"minItems": 1}}}
_SOME_QUERY: dict[str, Any] = {"required": ["q"], "properties": {"q": {"pattern": r"\S"}}}
_EVERYTHING: dict[str, Any] = {
    "required": ["everything"],
    "properties": {"everything": {"const": True}},
}


class Wanted(_Given):
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


class TestWanted(_Given):
    """Which sample to send."""

    type: str = Field(
        "message.received",
        max_length=200,
        json_schema_extra={"enum": list(awalchat_samples.types())},
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is wrong with a request, or with us."""

    error: str
    """A slug for programs."""
    message: str
    """A sentence for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, read."""

    by: Identity
    path: Mapping[str, Any]
    query: Any
    body: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One operation of the API."""

    method: Literal["GET", "POST"]
    path: str
    summary: str
    answers: Any
    """The type of a good answer."""
    handle: Callable[[Console, Call], object]
    query: type[_Given] | None = None
    body: type[_Given] | None = None
    needs_body: bool = False
    """Whether it means nothing without one."""
    errors: tuple[HTTPStatus, ...] = ()


def routes(console: Console) -> list[BaseRoute]:
    """The API's routes."""
    document = openapi.document(ENDPOINTS, problem=Problem, prefix=PREFIX, version=console.version)

    async def serve_document(_request: Request) -> Response:
        return JSONResponse(document)

    by_path: dict[str, dict[str, Callable[[Request], Any]]] = {}
    for each in ENDPOINTS:
        by_path.setdefault(PREFIX + each.path, {})[each.method] = _endpoint(console, each)
    return [
        Route(f"{PREFIX}/openapi.json", serve_document, methods=["GET"], name="openapi"),
        *(
            Route(
                path,
                _by_method(answers),
                methods=list(answers),
                name=f"api {path}",
                max_body_size=forms.MAX_BYTES,
            )
            for path, answers in by_path.items()
        ),
    ]


def _by_method(answers: Mapping[str, Callable[[Request], Any]]) -> Callable[[Request], Any]:
    """One route a path: of two, the first would answer 405 and name its own methods only."""

    async def answer(request: Request) -> Response:
        found: Response = await answers["GET" if request.method == "HEAD" else request.method](
            request
        )
        return found

    return answer


def problem(status: HTTPStatus, code: str, message: str) -> Response:
    """An answer that is an error."""
    return JSONResponse({"error": code, "message": message}, status)


def problem_of(error: Exception) -> Response:
    """The answer to an error that an operation raised."""
    found = problems.explain(error)
    return problem(found.status, found.code, found.sentence)


def _endpoint(console: Console, endpoint: Endpoint) -> Callable[[Request], Any]:
    adapter: TypeAdapter[Any] = TypeAdapter(endpoint.answers)

    async def answer(request: Request) -> Response:
        try:
            call = await _read(request, endpoint)
            found = await run_in_threadpool(endpoint.handle, console, call)
        except HTTPException:
            raise
        except Exception as error:
            return problem_of(error)
        return Response(adapter.dump_json(found), media_type="application/json")

    return answer


async def _read(request: Request, endpoint: Endpoint) -> Call:
    query = body = None
    repeated = [
        name for name in request.query_params if len(request.query_params.getlist(name)) > 1
    ]
    if repeated:
        raise BadRequest(f"{repeated[0]} is given more than once.", reason="bad_query")
    if endpoint.query is not None:
        query = _checked(endpoint.query, dict(request.query_params), "bad_query")
    elif request.query_params:
        raise BadRequest("This takes no query parameters.", reason="bad_query")
    if endpoint.body is not None:
        body = _checked(endpoint.body, await request.body() or b"{}", "bad_body")
    return Call(by=request.user, path=request.path_params, query=query, body=body)


def _checked(model: type[_Given], given: bytes | dict[str, str], reason: str) -> Any:
    try:
        if isinstance(given, bytes):  # "yes" is no `true` in JSON
            return model.model_validate_json(given, strict=True)
        return model(**given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(each) for each in first["loc"]) or "the body"
        raise BadRequest(f"{where}: {first['msg']}.", reason=reason) from None


def _overview(console: Console, call: Call) -> Overview:
    found = console.overviews.read(call.query.range)
    masked = masking.applies(console.settings, call.by)
    return replace(found, processors=views.of_processors(found.processors, masked=masked))


def _stats(console: Console, _call: Call) -> Stats:
    return console.overviews.read(Range.HOUR).stats


def _events(console: Console, call: Call) -> EventPage:
    selection = _selection(console, call.by, call.query.q)
    found = finding.find(
        console.engine,
        selection,
        limit=call.query.limit,
        before=call.query.before,
        after=call.query.after,
    )
    page = found.page
    masked = masking.applies(console.settings, call.by)
    return EventPage(
        events=views.of_listed((*page.named, *page.events), masked=masked),
        older=page.older,
        newer=page.newer,
        searched_to=page.reached.isoformat() if page.reached else None,
        count=found.count,
    )


def _event(console: Console, call: Call) -> EventView:
    with console.engine.connect() as connection:
        found = history.of_event(connection, call.path["id"], **views.BOUNDS)
    return views.of_event(found, masked=masking.applies(console.settings, call.by))


def _replay_event(console: Console, call: Call) -> Bulk:
    return _begin(console, call.by, Selection(ids=(call.path["id"],)), "replay", call.body.reason)


def _discard_event(console: Console, call: Call) -> Bulk:
    return _begin(console, call.by, Selection(ids=(call.path["id"],)), "discard", call.body.reason)


def _begin(
    console: Console, by: Identity, selection: Selection, action: str, reason: str | None
) -> Bulk:
    """For one event, which has to be there."""
    with console.engine.connect() as connection:
        history.check(connection, selection.ids[0])
    begun = console.operations.begin(by, selection, action=action, reason=reason)
    return Bulk(counts=begun.counts, operation=begun)


def _bulk(console: Console, call: Call) -> Bulk:
    wanted: Wanted = call.body
    if not wanted.ids and not wanted.everything and _is_everything(console, call):
        raise BadRequest(
            "Say what: ids, q, or everything for all dead letters.", reason="nothing_selected"
        )
    selection = (
        Selection(ids=tuple(wanted.ids)) if wanted.ids else _selection(console, call.by, wanted.q)
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


def _operations(console: Console, call: Call) -> Sequence[Operation]:
    with console.engine.connect() as connection:
        found = replay.operations(connection, limit=call.query.limit, before=call.query.before)
    masked = masking.applies(console.settings, call.by)
    return [views.of_operation(each, masked=masked) for each in found]


def _operation(console: Console, call: Call) -> Operation:
    with console.engine.connect() as connection:
        found = replay.operation(connection, call.path["id"])
    return views.of_operation(found, masked=masking.applies(console.settings, call.by))


def _changing(status: str) -> Callable[[Console, Call], Operation]:
    def change(console: Console, call: Call) -> Operation:
        return console.operations.change(call.by, call.path["id"], status, call.body.reason)

    return change


def _retry_job(console: Console, call: Call) -> Done:
    console.operations.retry_now(call.by, call.path["id"], call.body.reason)
    return Done()


def _replay_job(console: Console, call: Call) -> Operation:
    return console.operations.replay_job(call.by, call.path["id"], call.body.reason)


def _discard_job(console: Console, call: Call) -> Operation:
    return console.operations.discard_job(call.by, call.path["id"], call.body.reason)


def _failures(console: Console, call: Call) -> Failures:
    with console.engine.connect() as connection:
        found = failures.groups(connection, now=console.now())
    return views.of_failures(found, masked=masking.applies(console.settings, call.by))


def _rejected(console: Console, _call: Call) -> Sequence[Rejected]:
    with console.engine.connect() as connection:
        return failures.rejected(connection)


def _refusals(console: Console, call: Call) -> Sequence[Refusal]:
    with console.engine.connect() as connection:
        found = refusals.newest(connection)
    return views.of_refusals(found, masked=masking.applies(console.settings, call.by))


def _processors(console: Console, call: Call) -> Sequence[ProcessorRecord]:
    with console.engine.connect() as connection:
        found = processors.all_of_them(connection)
    return views.of_processors(found, masked=masking.applies(console.settings, call.by))


def _pause(console: Console, call: Call) -> Done:
    console.operations.pause(call.by, call.path["name"], call.body.reason)
    return Done()


def _resume(console: Console, call: Call) -> Done:
    console.operations.resume(call.by, call.path["name"], call.body.reason)
    return Done()


def _actions(console: Console, call: Call) -> Sequence[Action]:
    with console.engine.connect() as connection:
        found = actions.newest(connection, limit=call.query.limit, before=call.query.before)
    masked = masking.applies(console.settings, call.by)
    return [views.of_action(each, masked=masked) for each in found]


def _test_event(console: Console, call: Call) -> TestEvent:
    return console.operations.send_test_event(call.by, call.body.type)


def _selection(console: Console, by: Identity, q: str) -> Selection:
    """What a search means; for programs every problem is an error."""
    query = masking.parse(console.settings, by, q, now=console.now())
    if query.problems:
        raise BadRequest(query.problems[0].message, reason="bad_query")
    return query.selection


def _is_everything(console: Console, call: Call) -> bool:
    return _selection(console, call.by, call.body.q).is_everything


_NOT_FOUND = (HTTPStatus.NOT_FOUND,)
_CONFLICT = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        method="GET",
        path="/overview",
        query=OverviewQuery,
        answers=Overview,
        handle=_overview,
        summary="What the last hour, day or week looked like",
    ),
    Endpoint(
        method="GET", path="/stats", answers=Stats, handle=_stats, summary="Counts of everything"
    ),
    Endpoint(
        method="GET",
        path="/events",
        query=EventsQuery,
        answers=EventPage,
        handle=_events,
        summary="Search events, newest first",
    ),
    Endpoint(
        method="GET",
        path="/events/{id:uuid}",
        answers=EventView,
        handle=_event,
        errors=_NOT_FOUND,
        summary="One event with its deliveries, jobs and attempts",
    ),
    Endpoint(
        method="POST",
        path="/events/{id:uuid}/replay",
        body=Why,
        answers=Bulk,
        handle=_replay_event,
        errors=_NOT_FOUND,
        summary="Replay an event",
    ),
    Endpoint(
        method="POST",
        path="/events/{id:uuid}/discard",
        body=Why,
        answers=Bulk,
        handle=_discard_event,
        errors=_NOT_FOUND,
        summary="Discard what of an event waits or is dead",
    ),
    Endpoint(
        method="POST",
        path="/jobs/{id:number}/retry",
        body=Why,
        answers=Done,
        handle=_retry_job,
        errors=_CONFLICT,
        summary="Let a waiting job run now, or replay a dead one",
    ),
    Endpoint(
        method="POST",
        path="/jobs/{id:number}/replay",
        body=Why,
        answers=Operation,
        handle=_replay_job,
        errors=_NOT_FOUND,
        summary="Replay one job",
    ),
    Endpoint(
        method="POST",
        path="/jobs/{id:number}/discard",
        body=Why,
        answers=Operation,
        handle=_discard_job,
        errors=_NOT_FOUND,
        summary="Discard one job",
    ),
    Endpoint(
        method="GET",
        path="/replays",
        query=PageQuery,
        answers=Sequence[Operation],
        handle=_operations,
        summary="Replays and discards, newest first",
    ),
    Endpoint(
        method="POST",
        path="/replays",
        body=Wanted,
        needs_body=True,
        answers=Bulk,
        handle=_bulk,
        summary="Replay or discard some events, or all that a search means",
    ),
    Endpoint(
        method="GET",
        path="/replays/{id:number}",
        answers=Operation,
        handle=_operation,
        errors=_NOT_FOUND,
        summary="How far a replay or discard is",
    ),
    Endpoint(
        method="POST",
        path="/replays/{id:number}/pause",
        body=Why,
        answers=Operation,
        handle=_changing("paused"),
        errors=_CONFLICT,
        summary="Pause it",
    ),
    Endpoint(
        method="POST",
        path="/replays/{id:number}/resume",
        body=Why,
        answers=Operation,
        handle=_changing("running"),
        errors=_CONFLICT,
        summary="Go on with it",
    ),
    Endpoint(
        method="POST",
        path="/replays/{id:number}/cancel",
        body=Why,
        answers=Operation,
        handle=_changing("cancelled"),
        errors=_CONFLICT,
        summary="Cancel it; what is done stays done",
    ),
    Endpoint(
        method="GET",
        path="/failures",
        answers=Failures,
        handle=_failures,
        summary="What fails, grouped",
    ),
    Endpoint(
        method="GET",
        path="/rejected",
        answers=Sequence[Rejected],
        handle=_rejected,
        summary="Deliveries that were signed and are no event, grouped by reason",
    ),
    Endpoint(
        method="GET",
        path="/refusals",
        answers=Sequence[Refusal],
        handle=_refusals,
        summary="The last requests that were refused, a few for each reason",
    ),
    Endpoint(
        method="GET",
        path="/processors",
        answers=Sequence[ProcessorRecord],
        handle=_processors,
        summary="The processors and what their jobs are up to",
    ),
    Endpoint(
        method="POST",
        path="/processors/{name:path}/pause",
        body=Why,
        answers=Done,
        handle=_pause,
        errors=_NOT_FOUND,
        summary="Let a processor's jobs wait",
    ),
    Endpoint(
        method="POST",
        path="/processors/{name:path}/resume",
        body=Why,
        answers=Done,
        handle=_resume,
        errors=_NOT_FOUND,
        summary="Let a processor's jobs go on",
    ),
    Endpoint(
        method="GET",
        path="/actions",
        query=PageQuery,
        answers=Sequence[Action],
        handle=_actions,
        summary="What operators did, newest first",
    ),
    Endpoint(
        method="POST",
        path="/test-event",
        body=TestWanted,
        answers=TestEvent,
        handle=_test_event,
        errors=(HTTPStatus.CONFLICT,),
        summary="Post a signed sample to the receiver",
    ),
)
