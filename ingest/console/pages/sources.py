"""The page of sources: their addresses, their keys, and how much each key is used."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ingest.console.pages.site import Site
from ingest.console.services import source_view
from ingest.console.services.source_view import SourceView


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcesPage:
    """The view model of `sources.html`."""

    sources: tuple[SourceView, ...]


def routes(site: Site) -> list[BaseRoute]:
    """Return the route of the page."""
    return [site.get("/sources", show, name="sources")]


def show(site: Site, request: Request) -> Response:
    """Show the sources that have a key, or had one lately."""
    console = site.console
    with console.engine.connect() as connection:
        sources = source_view.read(connection, console.sources, now=console.now())
    return site.render(request, "sources.html", SourcesPage(sources=sources), section="sources")
