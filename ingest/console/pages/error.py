"""The page that reports an error."""

from starlette.requests import Request
from starlette.responses import Response

from ingest.console.auth.identity import Identity
from ingest.console.errors import ErrorResponse
from ingest.console.pages.site import Site


def show(site: Site, request: Request, error: ErrorResponse) -> Response:
    """Return the page of an error. It reads nothing from the database, which may be down."""
    user = request.scope.get("user")
    context = {
        "error": error,
        "version": site.console.version,
        "identity": user if isinstance(user, Identity) else None,
    }
    return site.templates.TemplateResponse(request, "error.html", context, status_code=error.status)
