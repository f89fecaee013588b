"""The pages of the API: its operations by what they are about, and one of them with a command that
calls it. Both are made from the OpenAPI document."""

from dataclasses import dataclass
from functools import cache

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ingest.console.api import operations
from ingest.console.pages.site import Site, search_text, user
from ingest.console.ui import api_reference
from ingest.console.ui.api_reference import Operation, Reference, Section
from ingest.errors import NotFound


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiPage:
    """The view model of `api_docs.html`."""

    q: str
    """What the operations shown were searched by."""
    sections: tuple[Section, ...]
    introduction: tuple[str, ...]
    """What holds for all operations, in paragraphs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationPage:
    """The view model of `api_operation.html`."""

    operation: Operation
    command: str
    """A shell command that calls it."""


def routes(site: Site) -> list[BaseRoute]:
    """Return the routes of the pages."""
    return [
        site.get("/docs", show_all, name="api docs"),
        site.get("/docs/{operation}", show, name="api operation"),
    ]


def show_all(site: Site, request: Request) -> Response:
    """Show the operations, or those whose names hold what was searched for."""
    reference = _reference(site.console.version)
    text = search_text(request)
    view = ApiPage(
        q=text,
        sections=reference.matching(text),
        introduction=reference.introduction,
    )
    return site.render(request, "api_docs.html", view, section="api")


def show(site: Site, request: Request) -> Response:
    """Show one operation."""
    operation = _reference(site.console.version).operation(request.path_params["operation"])
    if operation is None:
        raise NotFound("There is no such operation.", reason="not_found")
    command = api_reference.command(
        operation,
        base=f"{request.url.scheme}://{request.url.netloc}",
        has_token=user(request).via != "loopback",
    )
    view = OperationPage(operation=operation, command=command)
    return site.render(request, "api_operation.html", view, section="api")


def prepare(version: str) -> None:
    """Make what the pages are read from: it takes a third of a second, which the first reader need
    not wait for."""
    _reference(version)


@cache
def _reference(version: str) -> Reference:
    """Return what the document says, which never changes."""
    return api_reference.read(operations.document(version))
