"""The log-in page: which ways there are to come in, and why the last try failed."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.templating import Jinja2Templates

NO_USERS = "No users are configured: the console accepts bearer tokens only."


class LoginPage:
    """Renders the page."""

    def __init__(
        self, templates: Jinja2Templates, *, has_passwords: bool, provider: str | None
    ) -> None:
        """`provider` is what people know it by; None: nobody logs in with one."""
        self._templates = templates
        self._has_passwords = has_passwords
        self._provider = provider

    def render(
        self,
        request: Request,
        back: str,
        *,
        error: str | None = None,
        status: int = 200,
        retry_after_s: int | None = None,
        has_left: bool = False,
    ) -> Response:
        """Return the page. `back` is where a log-in leads; `has_left`: somebody logged out."""
        if error is None and not self._has_passwords and self._provider is None:
            error = NO_USERS
        headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        context = {
            "next": back,
            "error": error,
            "identity": None,
            "has_passwords": self._has_passwords or self._provider is None,
            "provider": self._provider,
            "has_left": has_left,
        }
        return self._templates.TemplateResponse(request, "login.html", context, status, headers)
