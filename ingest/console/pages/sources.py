"""The page of sources: their addresses, their keys, and how much each key is used."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ingest.console.pages.site import Site
from ingest.sources.base import Source
from ingest.store.reports import key_use
from ingest.store.reports.key_use import KeyUse


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRow:
    """A source that is received, and the use of its keys."""

    slug: str
    title: str
    keys: tuple[KeyUse, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcesPage:
    """The view model of `sources.html`."""

    sources: tuple[SourceRow, ...]


def routes(site: Site) -> list[BaseRoute]:
    """Return the route of the page."""
    return [site.get("/sources", show, name="sources")]


def show(site: Site, request: Request) -> Response:
    """Show the sources that have a key, or had one lately."""
    sources = site.console.sources
    keys = {slug: source.key_ids for slug, source in sources.items()}
    with site.console.engine.connect() as connection:
        uses = key_use.read(connection, keys, now=site.console.now())
    rows = (_row(source, uses) for source in sources.values())
    view = SourcesPage(sources=tuple(row for row in rows if row.keys))
    return site.render(request, "sources.html", view, section="sources")


def _row(source: Source, uses: list[KeyUse]) -> SourceRow:
    own = tuple(use for use in uses if use.source == source.slug)
    return SourceRow(slug=source.slug, title=source.title, keys=own)
