"""What every page uses: routes, rendering, masking, and the search field."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates

from ingest.console.auth.identity import Identity
from ingest.console.auth.roles import Role
from ingest.console.dependencies import LONGEST_QUERY, Console
from ingest.console.pages import done, freshness, once
from ingest.console.pages.once import Outcome
from ingest.console.services import alerts
from ingest.console.services.ranges import Range
from ingest.console.ui import forms, masking
from ingest.query import Query
from ingest.store.reports import audit_log

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The console and its templates.

    A template's context is the fields of its page's view model, and what `base.html` names.
    """

    console: Console
    templates: Jinja2Templates

    def get(self, path: str, handler: "PageHandler", *, name: str) -> Route:
        """Return the route of a page. The handler runs in a thread."""

        async def endpoint(request: Request) -> Response:
            return await run_in_threadpool(handler, self, request)

        return Route(path, endpoint, methods=["GET"], name=name)

    def post(self, path: str, handler: "FormHandler", *, name: str, changes: bool = True) -> Route:
        """Return the route of a form, whose handler runs in a thread. One that `changes` something
        is done once, however often it is sent."""

        async def endpoint(request: Request) -> Response:
            form = await forms.read(request)
            if changes:
                return await run_in_threadpool(self._act, handler, request, form)
            return await run_in_threadpool(handler, self, request, form)

        return Route(path, endpoint, methods=["POST"], name=name, max_body_size=forms.MAX_BYTES)

    def _act(self, handler: "FormHandler", request: Request, form: FormData) -> Response:
        """Run a form's handler, unless the form was sent before. The page that it redirects to
        tells what was done."""
        keyed = once.keyed(user(request), request.url.path, form)
        act = partial(self._outcome, handler, request, form)
        try:
            if keyed is None:
                outcome, is_again = act(), False
            else:
                outcome, is_again = once.outcome(self.console.keyed_requests, keyed, act)
        except once.Shown as shown:
            return shown.page
        response = redirect(outcome.location)
        if outcome.action is not None:
            is_secure = self.console.settings.console_tls_proxy
            done.remember(response, outcome.action, is_again=is_again, is_secure=is_secure)
        return response

    def _outcome(self, handler: "FormHandler", request: Request, form: FormData) -> Outcome:
        """Return what a form's handler did. Raises Shown if it did nothing but show a page."""
        engine = self.console.engine
        with engine.connect() as connection:
            last = audit_log.last(connection)
        response = handler(self, request, form)
        if response.status_code != HTTPStatus.SEE_OTHER:
            raise once.Shown(response)
        try:
            with engine.connect() as connection:
                action = audit_log.last_of(connection, user(request), after=last)
        except SQLAlchemyError:
            action = None  # it is done: to fail now would let it be done again
        return Outcome(location=response.headers["location"], action=action)

    def render(
        self,
        request: Request,
        template: str,
        view: "DataclassInstance",
        *,
        section: str,
        refresh_s: float | None = freshness.REFRESH_S,
        as_of: datetime | None = None,
    ) -> Response:
        """Return a page.

        Args:
            request: the request.
            template: the template's file name.
            view: the page's view model, a dataclass.
            section: which entry of the navigation is current.
            refresh_s: how often it asks for itself again; None: it does not. The answer to a form
                never does.
            as_of: when what it shows was read; None: now.
        """
        status = alerts.read(self.console.overviews)
        refreshes = refresh_s is not None and request.method != "POST"
        moment = as_of or self.console.now()
        context = {
            "section": section,
            "identity": user(request),
            "version": self.console.version,
            "notices": status.notices,
            "dead_letters": status.dead_letters,
            "has_more_dead_letters": status.has_more_dead_letters,
            "done": done.read(self.console.engine, request, user(request)),
            "refresh_s": refresh_s if refreshes else None,
            "as_of": moment,
            **{field.name: getattr(view, field.name) for field in fields(view)},
        }
        page: Response = self.templates.TemplateResponse(request, template, context)
        done.forget(request, page)
        if refreshes:
            page = freshness.unless_known(request, page, moment)
        if page.status_code == HTTPStatus.OK:
            once.mark(page, self.console.keyed_requests.new_token())
        return page

    def masks(self, request: Request) -> bool:
        """Return whether bodies and phone numbers are hidden from the user."""
        return masking.applies(self.console.settings, user(request))

    def parse_search(self, request: Request, text: str) -> Query:
        """Parse a search, without the conditions that the user may not search by."""
        return masking.parse(self.console.settings, user(request), text, now=self.console.now())


PageHandler = Callable[[Site, Request], Response]
FormHandler = Callable[[Site, Request, FormData], Response]


def user(request: Request) -> Identity:
    """Return the user who sent a request."""
    identity: Identity = request.user
    return identity


def is_operator(request: Request) -> bool:
    """Return whether the user may change something."""
    return user(request).role is Role.OPERATOR


def search_text(request: Request) -> str:
    """Return the text of the search field."""
    return request.query_params.get("q", "")[:LONGEST_QUERY]


def time_range(request: Request, *, default: Range) -> Range:
    """Return the range that the user chose, or the default."""
    try:
        return Range(request.query_params.get("range", default))
    except ValueError:
        return default


def redirect(path: str) -> Response:
    """Return a redirect to a page after a change."""
    return RedirectResponse(path, HTTPStatus.SEE_OTHER)
