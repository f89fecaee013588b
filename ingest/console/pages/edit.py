"""The page on which an operator edits an event's body, looks at what it would become, and sends it.

The form is posted for each look, so that no body stands in an address.
"""

from dataclasses import dataclass
from uuid import UUID, uuid4

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ingest.console.errors import BadRequest
from ingest.console.pages.site import Site, redirect, user
from ingest.console.services.resending import Preview
from ingest.console.ui.forms import text_field
from ingest.console.ui.paths import parse_uuid
from ingest.resending import CannotResend


@dataclass(frozen=True, slots=True, kw_only=True)
class EditPage:
    """The view model of `edit.html`."""

    event: UUID
    body: str
    reason: str
    number: UUID
    """Of this order: sent twice, it is sent once."""
    preview: Preview | None
    """What it would become; None: nobody has asked, or it cannot be sent."""
    problem: str | None
    """Why it cannot be sent."""


def routes(site: Site) -> list[BaseRoute]:
    """Return the routes of the page and its forms. All are for operators (`is_for_operators` in
    ingest.console.auth.request_info), as the page shows the body."""
    return [
        site.get("/events/{id:uuid}/edit", show, name="edit event"),
        site.post("/events/{id:uuid}/edit", check, name="check edited event", changes=False),
        site.post("/events/{id:uuid}/resend", resend, name="resend event"),
    ]


def show(site: Site, request: Request) -> Response:
    """Show the form with the event's own body."""
    event = request.path_params["id"]
    return _show(site, request, event, FormData(), body=site.console.resending.text(event))


def check(site: Site, request: Request, form: FormData) -> Response:
    """Show what an edited body would become, or why it cannot be sent."""
    event = request.path_params["id"]
    body = _body(form)
    try:
        preview = site.console.resending.preview(event, body)
    except CannotResend as error:
        return _show(site, request, event, form, body=body, problem=str(error))
    return _show(site, request, event, form, body=body, preview=preview)


def resend(site: Site, request: Request, form: FormData) -> Response:
    """Send an edited body, or show why it cannot be sent."""
    event = request.path_params["id"]
    number = parse_uuid(text_field(form, "number"))
    if number is None:
        raise BadRequest("The form has no number.", reason="bad_number")
    try:
        site.console.resending.send(
            user(request), event, _body(form), number=number, reason=text_field(form, "reason")
        )
    except CannotResend as error:
        return _show(site, request, event, form, body=_body(form), problem=str(error))
    return redirect(f"/events/{event}#copies")


def _show(
    site: Site,
    request: Request,
    event: UUID,
    form: FormData,
    *,
    body: str,
    preview: Preview | None = None,
    problem: str | None = None,
) -> Response:
    view = EditPage(
        event=event,
        body=body,
        reason=text_field(form, "reason"),
        number=parse_uuid(text_field(form, "number")) or uuid4(),
        preview=preview,
        problem=problem,
    )
    return site.render(request, "edit.html", view, section="events", refresh_s=None)


def _body(form: FormData) -> str:
    """Return the body that was typed. Browsers end the lines of a text in two characters."""
    return text_field(form, "body").replace("\r\n", "\n")
