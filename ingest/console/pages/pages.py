"""The console's pages: each reads what it shows, and every change comes back to a page (303)."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from http import HTTPStatus
from typing import Any
from uuid import UUID

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.templating import Jinja2Templates

from ingest.console.auth.identity import Identity
from ingest.console.auth.roles import Role
from ingest.console.dependencies import LONGEST_QUERY, PAGE, Console
from ingest.console.errors import BadRequest, ErrorResponse
from ingest.console.pages import shown
from ingest.console.pages.shown import SHOWN_BYTES, address
from ingest.console.pages.stream import is_checked
from ingest.console.services import alerts, event_query, event_view
from ingest.console.services.commands import public_url
from ingest.console.services.event_query import Found
from ingest.console.services.event_view import EventView
from ingest.console.services.overview import LATE_AFTER, Range
from ingest.console.ui import forms, masking, resend_command
from ingest.errors import NotFound
from ingest.query import Query, spell
from ingest.store.bulk import replay
from ingest.store.bulk.replay import DISCARD, REPLAY, Counts
from ingest.store.pipeline import jobs, metrics, processors
from ingest.store.pipeline.metrics import FAILED, REFUSED, SUCCEEDED, Histogram
from ingest.store.reports import audit_log as actions
from ingest.store.reports import event_detail, failures, refused_requests
from ingest.store.search import events as listing
from ingest.store.search.filters import UNHANDLED, EventFilter, resolve

_SAMPLE = 5
_RATES_OVER = timedelta(hours=1)
_PERIODS = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7)}
_LIVE_KNOWS = (
    "What arrives is filtered by type, source, state and text of its id only; the list is complete."
)
_MOVING = ("pending", "running", "retrying")


class Pages:
    """The endpoints."""

    def __init__(self, console: Console, templates: Jinja2Templates) -> None:
        self._console = console
        self._templates = templates

    def routes(self) -> list[BaseRoute]:
        """Every page, and every form."""
        reads = [
            ("/", self.overview, "overview"),
            ("/events", self.events, "events"),
            ("/events/{id:uuid}", self.event, "event"),
            ("/deliveries/{id:uuid}", self.delivery, "delivery"),
            ("/failures", self.failures, "failures"),
            ("/live", self.live, "live"),
            ("/processors", self.processors, "processors"),
            ("/actions", self.actions, "actions"),
            ("/operations/{id:number}", self.operation, "operation"),
        ]
        posts = [
            ("/events/preview", self.preview, "preview"),
            ("/events/{id:uuid}/replay", self.replay_event, "replay event"),
            ("/events/{id:uuid}/discard", self.discard_event, "discard event"),
            ("/jobs/{id:number}/retry", self.retry_job, "retry job"),
            ("/operations", self.begin, "begin"),
            ("/operations/{id:number}/{change}", self.change, "change"),
            ("/processors/{name:path}/{change}", self.change_processor, "change processor"),
            ("/test-event", self.test_event, "test event"),
        ]
        return [
            *(
                Route(path, self._page(read), methods=["GET"], name=name)
                for path, read, name in reads
            ),
            *(
                Route(
                    path,
                    self._form(act),
                    methods=["POST"],
                    name=name,
                    max_body_size=forms.MAX_BYTES,
                )
                for path, act, name in posts
            ),
        ]

    def error(self, request: Request, found: ErrorResponse) -> Response:
        """A page that says what is wrong."""
        context = {
            "status": int(found.status),
            "sentence": found.sentence,
            "advice": found.advice,
            "version": self._console.version,
            "identity": _known(request),
        }
        return self._templates.TemplateResponse(
            request, "error.html", context, status_code=found.status
        )

    # Reading.

    def overview(self, request: Request) -> Response:
        """What came in, what became of it, and how everything is."""
        wanted = _range(request)
        found = self._console.overviews.read(wanted)
        empty = not found.stats.events.total and not found.stats.deliveries.rejected
        return self._render(
            request,
            "overview.html",
            "overview",
            range=str(wanted),
            now=found.now,
            totals=shown.totals(found),
            current=shown.current(found),
            oldest_limit_s=LATE_AFTER.total_seconds(),
            charts=shown.drawn(found),
            dead_by_processor=shown.dead_letters(found),
            parked=found.parked,
            unreadable=shown.unreadable(found),
            services=shown.services(found),
            processes=found.processes,
            is_empty=empty,
            receiver_url=public_url(self._console.settings, self._console.settings.default_source),
            test_event=bool(self._console.default_source.secrets),
        )

    def events(self, request: Request) -> Response:
        """A page of the events that a search means."""
        text = request.query_params.get("q", "")[:LONGEST_QUERY]
        query = self._parse(request, text)
        found = self._find(request, query)
        page = found.page
        return self._render(
            request,
            "events.html",
            "events",
            q=text,
            problems=[each.message for each in query.problems],
            chips=shown.chips(query.selection),
            events=event_view.of_listed((*page.named, *page.events), masked=self._masks(request)),
            count=shown.counted(found.count),
            bulk=shown.bulk(query.selection),
            older=address("/events", q=text, before=page.older) if page.older else None,
            newer=address("/events", q=text, after=page.newer) if page.newer else None,
            searched_to=page.reached,
            go_on=address("/events", q=text, before=page.older)
            if page.reached and page.older
            else None,
        )

    def event(self, request: Request) -> Response:
        """One event with all that happened to it."""
        with self._console.engine.connect() as connection:
            found = event_detail.of_event(
                connection, request.path_params["id"], **event_view.BOUNDS
            )
        event = event_view.of_event(found, masked=self._masks(request))
        return self._render(
            request,
            "event.html",
            "events",
            event=event,
            deliveries=[
                {
                    "id": each.id,
                    "received_at": each.received_at,
                    "key_id": each.signature.key_id,
                    "signed_at": each.signature.signed_at,
                    "skew_s": each.signature.skew_s,
                    "conflict": each.conflict,
                    "kept": each.kept,
                    "diff": [(line.kind, line.text) for line in each.difference] or None,
                }
                for each in event.deliveries
            ],
            body=shown.body(event),
            headers=event.deliveries[0].headers,
            curl=self._curl(request, event),
            unsigned_source=self._unsigned_source(request, event),
            jobs=[shown.job(each) for each in event.jobs],
            moves=any(job.state in _MOVING for job in event.jobs),
        )

    def delivery(self, request: Request) -> Response:
        """A rejected delivery, or the event that a delivery belongs to."""
        with self._console.engine.connect() as connection:
            found = listing.delivery(connection, request.path_params["id"])
            with contextlib.suppress(NotFound):
                return _see(f"/events/{resolve(connection, [str(found.id)])[0]}")
        hidden = self._masks(request)
        body = found.body[:SHOWN_BYTES].decode("utf-8", "replace")
        return self._render(
            request,
            "delivery.html",
            "failures",
            delivery=found,
            headers=found.headers,
            body=masking.HIDDEN if hidden else body,
            size=len(found.body),
            cut=len(found.body) > SHOWN_BYTES,
        )

    def failures(self, request: Request) -> Response:
        """What fails, what was rejected, what was refused."""
        wanted = str(_range(request, Range.DAY))
        now = self._console.now()
        with self._console.engine.connect() as connection:
            found = failures.groups(connection, now=now, period=_PERIODS[wanted])
            rejected = failures.rejected(connection)
            samples = event_view.of_refusals(
                refused_requests.newest(connection), masked=self._masks(request)
            )
            refused = metrics.by_label(connection, REFUSED, since=now - _PERIODS["week"])
        found = event_view.of_failures(found, masked=self._masks(request))
        return self._render(
            request,
            "failures.html",
            "failures",
            range=wanted,
            groups=[shown.failing(each) for each in found.groups],
            is_whole=found.is_whole,
            examined=found.examined,
            rejected=[
                {
                    "reason": each.reason,
                    "text": None,
                    "count": each.deliveries,
                    "last_at": each.last_seen,
                    "example_href": f"/deliveries/{each.example}",
                }
                for each in rejected
            ],
            refused=shown.refused(samples, refused),
        )

    def live(self, request: Request) -> Response:
        """The newest events, and the stream of those that arrive."""
        text = request.query_params.get("q", "")[:LONGEST_QUERY]
        query = self._parse(request, text)
        with self._console.engine.connect() as connection:
            page = listing.page(connection, query.selection, limit=PAGE)
        return self._render(
            request,
            "live.html",
            "live",
            q=text,
            problems=[
                *(each.message for each in query.problems),
                *([] if is_checked(query.selection) else [_LIVE_KNOWS]),
            ],
            stream_url=address("/live/stream", q=text),
            events=event_view.of_listed(page.events, masked=self._masks(request)),
        )

    def processors(self, request: Request) -> Response:
        """The processors, and how they do."""
        since = self._console.now() - _RATES_OVER
        with self._console.engine.connect() as connection:
            found = processors.all_of_them(connection)
            parked = jobs.parked(connection)
            succeeded = metrics.by_label(connection, SUCCEEDED, since=since)
            failed = metrics.by_label(connection, FAILED, since=since)
        none = Histogram()
        return self._render(
            request,
            "processors.html",
            "processors",
            range_text="in the last hour",
            processors=[
                {
                    **asdict(each),
                    "rate": succeeded.get(each.name, none).total / _RATES_OVER.total_seconds(),
                    "p50_s": succeeded.get(each.name, none).percentile(0.5),
                    "p95_s": succeeded.get(each.name, none).percentile(0.95),
                    "failures": failed.get(each.name, none).total,
                    "parked": [lane for lane in parked if lane.processor == each.name],
                }
                for each in event_view.of_processors(found, masked=self._masks(request))
            ],
        )

    def actions(self, request: Request) -> Response:
        """What operators did."""
        before = _number(request.query_params.get("before"))
        with self._console.engine.connect() as connection:
            found = actions.newest(connection, limit=PAGE + 1, before=before)
            operations = {
                number: replay.operation(connection, number)
                for number in {each.replay for each in found if each.replay is not None}
            }
        listed = [event_view.of_action(each, masked=self._masks(request)) for each in found[:PAGE]]
        return self._render(
            request,
            "actions.html",
            "actions",
            actions=[shown.action(each, operations) for each in listed],
            older=address("/actions", before=listed[-1].id) if len(found) > PAGE else None,
            newer="/actions" if before is not None else None,
        )

    def operation(self, request: Request) -> Response:
        """One replay or discard, and how far it is."""
        with self._console.engine.connect() as connection:
            found = replay.operation(connection, request.path_params["id"])
        found = event_view.of_operation(found, masked=self._masks(request))
        return self._render(
            request,
            "operation.html",
            "actions",
            operation=shown.operation(found, now=self._console.now()),
            selection=shown.pairs(found.selection),
            list_href=address("/events", q=spell(found.selection)),
        )

    # Changing. Each returns where to go next.

    def preview(self, request: Request, form: FormData) -> Response:
        """What a replay or discard would touch, before it is begun."""
        choice = _field(form, "action")
        action, _, of = choice.partition("-")
        if action not in (REPLAY, DISCARD) or of not in ("selected", "all"):
            raise BadRequest("That is no action.", reason="bad_action")
        ids = _ids(form) if of == "selected" else ()
        text = _field(form, "q")[:LONGEST_QUERY]
        selection, problem = self._selected(request, text, ids, of)
        with self._console.engine.connect() as connection:
            counts = replay.count(connection, selection, action=action)
            by_processor = replay.by_processor(connection, selection, action=action)
            meant = _sampled(selection, counts)
            sample = listing.page(connection, meant, limit=_SAMPLE).events
        return self._render(
            request,
            "preview.html",
            "events",
            action=action,
            jobs={"value": counts.jobs, "kind": "exact"},
            events=counts.events,
            left_alone=counts.running + counts.gone,
            by_processor=by_processor,
            selection=shown.pairs(selection),
            q=text,
            ids=ids,
            back=address("/events", q=text),
            sample=event_view.of_listed(sample, masked=False),
            problem=problem,
        )

    def begin(self, request: Request, form: FormData) -> Response:
        """Begin a replay or discard."""
        ids = _ids(form)
        text = _field(form, "q")[:LONGEST_QUERY]
        selection, problem = self._selected(request, text, ids, "selected" if ids else "all")
        if problem is not None:
            raise BadRequest(problem, reason="bad_query")
        begun = self._console.operations.begin(
            _who(request),
            selection,
            action=_field(form, "action"),
            reason=_field(form, "reason"),
            rate=_rate(_field(form, "rate")),
        )
        return _see(f"/operations/{begun.id}")

    def change(self, request: Request, form: FormData) -> Response:
        """Pause, resume or cancel one."""
        statuses = {"pause": "paused", "resume": "running", "cancel": "cancelled"}
        wanted = statuses.get(request.path_params["change"])
        if wanted is None:
            raise BadRequest("That is no change.", reason="bad_action")
        number = request.path_params["id"]
        self._console.operations.change(_who(request), number, wanted, _field(form, "reason"))
        return _see(f"/operations/{number}")

    def replay_event(self, request: Request, form: FormData) -> Response:
        """Replay an event."""
        return self._act_on_event(request, form, REPLAY)

    def discard_event(self, request: Request, form: FormData) -> Response:
        """Discard what of an event waits or is dead."""
        return self._act_on_event(request, form, DISCARD)

    def retry_job(self, request: Request, form: FormData) -> Response:
        """Let a job run now."""
        job = request.path_params["id"]
        self._console.operations.retry_now(_who(request), job, _field(form, "reason"))
        with self._console.engine.connect() as connection:
            return _see(f"/events/{event_detail.job(connection, job).event}")

    def change_processor(self, request: Request, form: FormData) -> Response:
        """Pause or resume a processor."""
        name, wanted = request.path_params["name"], request.path_params["change"]
        changes = {
            "pause": self._console.operations.pause,
            "resume": self._console.operations.resume,
        }
        if wanted not in changes:
            raise BadRequest("That is no change.", reason="bad_action")
        changes[wanted](_who(request), name, _field(form, "reason"))
        return _see("/processors")

    def test_event(self, request: Request, form: FormData) -> Response:
        """Send a signed sample to the receiver."""
        self._console.operations.send_test_event(
            _who(request), _field(form, "type") or None, source=_field(form, "source") or None
        )
        return _see("/live")

    def _act_on_event(self, request: Request, form: FormData, action: str) -> Response:
        event = request.path_params["id"]
        with self._console.engine.connect() as connection:
            event_detail.check(connection, event)
        self._console.operations.begin(
            _who(request), EventFilter(ids=(event,)), action=action, reason=_field(form, "reason")
        )
        return _see(f"/events/{event}")

    # What they share.

    def _page(self, read: Callable[[Request], Response]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            return await run_in_threadpool(read, request)

        return endpoint

    def _form(self, act: Callable[[Request, FormData], Response]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            form = await forms.read(request)
            return await run_in_threadpool(act, request, form)

        return endpoint

    def _render(self, request: Request, template: str, page: str, **context: Any) -> Response:
        who: Identity = request.user
        shared = alerts.read(self._console)
        return self._templates.TemplateResponse(
            request,
            template,
            {
                "page": page,
                "identity": who,
                "version": self._console.version,
                "alerts": shared.alerts,
                "dead_letters": shared.dead_letters,
                **context,
            },
        )

    def _masks(self, request: Request) -> bool:
        return masking.applies(self._console.settings, request.user)

    def _parse(self, request: Request, text: str) -> Query:
        who = request.user
        return masking.parse(self._console.settings, who, text, now=self._console.now())

    def _find(self, request: Request, query: Query) -> Found:
        before, after = (_uuid(request.query_params.get(name)) for name in ("before", "after"))
        return event_query.find(
            self._console.engine, query.selection, limit=PAGE, before=before, after=after
        )

    def _selected(
        self, request: Request, text: str, ids: Sequence[UUID], of: str
    ) -> tuple[EventFilter, str | None]:
        """What a form means, and what is wrong with it. A search that is not understood in part
        would mean more than its author thinks."""
        if of == "selected":
            problem = None if ids else "Nothing is selected."
            return EventFilter(ids=tuple(ids)) if ids else _NOTHING, problem
        query = self._parse(request, text)
        problem = query.problems[0].message if query.problems else None
        return query.selection, problem

    def _curl(self, request: Request, event: EventView) -> str | None:
        """For who may send things: the secret signs it."""
        body = event.deliveries[0].body
        source = self._console.sources.get(event.source)
        if (
            body is None
            or request.user.role is not Role.OPERATOR
            or source is None
            or not source.secrets
            or len(body) > SHOWN_BYTES
        ):
            return None
        url = public_url(self._console.settings, source.slug)
        return resend_command.command(url, source, body.encode(), now=int(self._console.clock()))

    def _unsigned_source(self, request: Request, event: EventView) -> str | None:
        """Return the event's source if an operator cannot have its body signed, None otherwise."""
        is_operator = request.user.role is Role.OPERATOR
        return event.source if is_operator and event.source not in self._console.sources else None


_NOTHING = EventFilter(ids=(UUID(int=0),))


def _range(request: Request, default: Range = Range.HOUR) -> Range:
    try:
        return Range(request.query_params.get("range", default))
    except ValueError:
        return default


def _sampled(selection: EventFilter, counts: Counts) -> EventFilter:
    """Where no state is given, events of those that the action is about."""
    if not selection.means_what_failed:
        return selection
    return replace(selection, state=UNHANDLED if counts.events and not counts.jobs else "dead")


def _see(path: str) -> Response:
    return RedirectResponse(path, HTTPStatus.SEE_OTHER)


def _known(request: Request) -> Identity | None:
    """Return who asks, None if nobody is known to, or it does not matter."""
    user = request.scope.get("user")
    return user if isinstance(user, Identity) else None


def _who(request: Request) -> Identity:
    who: Identity = request.user
    return who


def _field(form: FormData, name: str) -> str:
    value = form.get(name, "")
    return value if isinstance(value, str) else ""


def _ids(form: FormData) -> tuple[UUID, ...]:
    given = [each for each in form.getlist("id") if isinstance(each, str)]
    found = tuple(filter(None, map(_uuid, given)))
    if len(found) != len(given):
        raise BadRequest("That is no event's id.", reason="bad_id")
    return found


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None


def _rate(text: str) -> float | None:
    if not text:
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0.001 <= rate <= 1_000_000:
        raise BadRequest("The rate is a number of jobs a second.", reason="bad_rate")
    return rate
