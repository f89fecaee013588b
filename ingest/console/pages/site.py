"""What every page uses: routes, rendering, masking, and the search field."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates

from ingest.console.auth.identity import Identity
from ingest.console.auth.roles import Role
from ingest.console.dependencies import LONGEST_QUERY, Console
from ingest.console.services import alerts
from ingest.console.services.ranges import Range
from ingest.console.ui import forms, masking
from ingest.query import Query

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

    def post(self, path: str, handler: "FormHandler", *, name: str) -> Route:
        """Return the route of a form. The handler runs in a thread."""

        async def endpoint(request: Request) -> Response:
            form = await forms.read(request)
            return await run_in_threadpool(handler, self, request, form)

        return Route(path, endpoint, methods=["POST"], name=name, max_body_size=forms.MAX_BYTES)

    def render(
        self, request: Request, template: str, view: "DataclassInstance", *, section: str
    ) -> Response:
        """Return a page.

        Args:
            request: the request.
            template: the template's file name.
            view: the page's view model, a dataclass.
            section: which entry of the navigation is current.
        """
        status = alerts.read(self.console.overviews)
        context = {
            "section": section,
            "identity": user(request),
            "version": self.console.version,
            "notices": status.notices,
            "dead_letters": status.dead_letters,
            **{field.name: getattr(view, field.name) for field in fields(view)},
        }
        return self.templates.TemplateResponse(request, template, context)

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
