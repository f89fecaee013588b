"""The pages that erase a person: the order, what the search found, the confirmation, the progress.

They are for operators alone. What is searched for is in forms that are posted, and in no address,
page or message.
"""

from dataclasses import dataclass

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ingest.console.dependencies import PAGE_SIZE
from ingest.console.errors import BadRequest
from ingest.console.pages.freshness import REFRESH_S
from ingest.console.pages.site import Site, redirect, user
from ingest.console.services.erasures import Wanted
from ingest.console.ui.forms import text_field
from ingest.console.ui.paths import link, parse_number
from ingest.erasure import sentences
from ingest.erasure.report import Report
from ingest.erasure.traces import vacuum_statements
from ingest.store.erasure.records import ERASING, SEARCHING


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasuresPage:
    """The view model of `erasures.html`."""

    erasures: tuple[Report, ...]
    """The newest first."""
    sources: tuple[str, ...]
    older: str | None
    newer: str | None
    """Links to older erasures and to the newest; None: there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasurePage:
    """The view model of `erasure.html`."""

    erasure: Report
    is_running: bool
    """Whether the console is at it."""
    says: tuple[str, ...]
    """What there is to say of it, in sentences."""
    cannot_be_undone: str
    bytes_stay: str
    vacuum: str
    """The statements that remove the erased bytes from the database's files."""


def routes(site: Site) -> list[BaseRoute]:
    """Return the routes of the pages and their forms."""
    return [
        site.get("/erasures", show_all, name="erasures"),
        site.post("/erasures", order, name="order erasure"),
        site.get("/erasures/{id:number}", show, name="erasure"),
        site.post("/erasures/{id:number}/{change}", change, name="change erasure"),
    ]


def show_all(site: Site, request: Request) -> Response:
    """Show the form and the erasures so far."""
    before = parse_number(request.query_params.get("before"))
    newest = site.console.erasures.newest(limit=PAGE_SIZE + 1, before=before)
    shown = tuple(newest[:PAGE_SIZE])
    view = ErasuresPage(
        erasures=shown,
        sources=tuple(sorted(site.console.sources)),
        older=link("/erasures", before=shown[-1].id) if len(newest) > PAGE_SIZE else None,
        newer="/erasures" if before is not None else None,
    )
    return site.render(request, "erasures.html", view, section="erasures")


def order(site: Site, request: Request, form: FormData) -> Response:
    """Begin to search for a person. BadPerson and BadRequest become a page."""
    wanted = Wanted(
        phones=_lines(form, "phones"),
        contacts=_lines(form, "contacts"),
        conversations=_lines(form, "conversations"),
        source=text_field(form, "source") or None,
        reason=text_field(form, "reason"),
    )
    return redirect(f"/erasures/{site.console.erasures.order(user(request), wanted).id}")


def show(site: Site, request: Request) -> Response:
    """Show an erasure and its progress."""
    view = _view(site, request)
    often = 1.0 if view.is_running else REFRESH_S
    return site.render(request, "erasure.html", view, section="erasures", refresh_s=often)


def change(site: Site, request: Request, form: FormData) -> Response:
    """Confirm, cancel or continue an erasure."""
    number, erasures = request.path_params["id"], site.console.erasures
    match request.path_params["change"]:
        case "erase":
            erasures.erase(user(request), number, typed=text_field(form, "typed"))
        case "cancel":
            erasures.cancel(user(request), number)
        case "continue":
            erasures.resume(user(request), number)
        case _:
            raise BadRequest("The change must be erase, cancel or continue.", reason="bad_action")
    return redirect(f"/erasures/{number}")


def _view(site: Site, request: Request) -> ErasurePage:
    erasure = site.console.erasures.read(request.path_params["id"])
    says = []
    if erasure.status != "finished":
        says += site.console.erasures.erased_before(erasure.id)
    if erasure.known:
        says.append(sentences.known(erasure.known))
    if erasure.shared:
        says.append(sentences.shared(erasure.shared))
    if erasure.jobs:
        says.append(sentences.given_up(erasure.jobs))
    return ErasurePage(
        erasure=erasure,
        is_running=erasure.background and erasure.status in (SEARCHING, ERASING),
        says=tuple(says),
        cannot_be_undone=sentences.CANNOT_BE_UNDONE,
        bytes_stay=sentences.BYTES_STAY,
        vacuum="\n".join(vacuum_statements(erasure.tables, site.console.settings.database_schema)),
    )


def _lines(form: FormData, name: str) -> tuple[str, ...]:
    """Return what a field holds, one a line."""
    lines = (line.strip() for line in text_field(form, name).splitlines())
    return tuple(filter(None, lines))
