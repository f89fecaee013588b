"""The routes of all pages."""

from starlette.routing import BaseRoute

from ingest.console.pages import (
    alerts,
    api_docs,
    audit_log,
    bulk_action,
    delivery,
    edit,
    entity,
    erasures,
    event,
    events,
    failure,
    failures,
    live,
    overview,
    processor,
    processors,
    refusals,
    retention,
    saved_views,
    sources,
)
from ingest.console.pages.site import Site


def routes(site: Site) -> list[BaseRoute]:
    """Return the routes of all pages and of their forms."""
    modules = (
        overview,
        events,
        saved_views,
        bulk_action,
        event,
        delivery,
        edit,
        entity,
        failures,
        failure,
        refusals,
        alerts,
        live,
        processors,
        processor,
        sources,
        retention,
        erasures,
        audit_log,
        api_docs,
    )
    return [route for module in modules for route in module.routes(site)]
