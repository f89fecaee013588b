"""The forms that save, rename and delete a view, and the words that the search field completes."""

from urllib.parse import quote

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from ingest.console.dependencies import LONGEST_QUERY
from ingest.console.errors import BadRequest
from ingest.console.pages.site import Site, redirect, user
from ingest.console.services import saved_views, search_words
from ingest.console.ui.forms import text_field
from ingest.store.views import View


def routes(site: Site) -> list[BaseRoute]:
    """Return the routes of the forms and of the words."""
    return [
        site.post("/views", save, name="save view"),
        site.post("/views/{id:number}/rename", rename, name="rename view"),
        site.post("/views/{id:number}/delete", delete, name="delete view"),
        site.get("/search-words", complete, name="search words"),
    ]


def save(site: Site, request: Request, form: FormData) -> Response:
    """Save a search that is understood, and open it."""
    text = text_field(form, "q")[:LONGEST_QUERY]
    problems = site.parse_search(request, text).problems
    if problems:
        raise BadRequest(problems[0].message, reason="bad_query")
    view = saved_views.save(
        site.console.engine,
        user(request),
        name=text_field(form, "name"),
        query=text,
        oldest_first=text_field(form, "sort") == "oldest",
    )
    return _open(view)


def rename(site: Site, request: Request, form: FormData) -> Response:
    """Rename a view, and open it."""
    number, name = request.path_params["id"], text_field(form, "name")
    return _open(saved_views.rename(site.console.engine, user(request), number, name))


def delete(site: Site, request: Request, _form: FormData) -> Response:
    """Delete a view."""
    saved_views.delete(site.console.engine, user(request), request.path_params["id"])
    return redirect("/events")


def complete(site: Site, request: Request) -> Response:
    """Return the filters with their meanings, and the values that there are for some of them."""
    with site.console.engine.connect() as connection:
        known = search_words.read(connection, masked=site.masks(request))
    return JSONResponse({"filters": known.filters, "values": known.values})


def _open(view: View) -> Response:
    sort = "&sort=oldest" if view.oldest_first else ""
    return redirect(f"/events?q={quote(view.query)}{sort}")
