"""Why a log-in with a provider failed, in the words of the log-in page.

Nothing that the provider or the address says is quoted but an error's code: anybody can put text
into the address of a link.
"""

import re
from http import HTTPStatus

from ingest.console.auth.errors import AuthError
from ingest.console.auth.oidc.configuration import SECRET

_CODE = re.compile(r"[a-z_]{1,40}")


class LoginFailed(AuthError):
    """Nobody is logged in; the message is for the log-in page."""


class ProviderAway(LoginFailed):
    """The provider does not answer."""


def away(title: str) -> ProviderAway:
    """Return the error where the provider does not answer."""
    return ProviderAway(
        f"{title} does not answer: try again in a while.",
        reason="provider_away",
        status=HTTPStatus.BAD_GATEWAY,
    )


def unfit(title: str, what: str) -> LoginFailed:
    """Return the error where the provider is not what the settings say."""
    return LoginFailed(
        f"{title} cannot be used for logging in: {what}.",
        reason="provider_unfit",
        status=HTTPStatus.BAD_GATEWAY,
    )


def untrusted(title: str, what: str) -> LoginFailed:
    """Return the error where what the provider says of somebody is not proven."""
    return LoginFailed(
        f"What {title} says of you cannot be trusted: {what}. Nobody is logged in.",
        reason="token_untrusted",
        status=HTTPStatus.BAD_GATEWAY,
    )


def not_begun(title: str) -> LoginFailed:
    """Return the error where this browser did not begin the log-in."""
    return LoginFailed(
        f"This log-in with {title} was not begun in this browser, or it took too long:"
        " begin again.",
        reason="state_unknown",
        status=HTTPStatus.BAD_REQUEST,
    )


def no_role(title: str, name: str) -> LoginFailed:
    """Return the error where somebody has no business here."""
    return LoginFailed(
        f"{title} knows you as {name}, but nothing that it says of you lets you in here:"
        " ask who looks after this console.",
        reason="no_role",
        status=HTTPStatus.FORBIDDEN,
    )


def refused(title: str, code: str) -> LoginFailed:
    """Return the error that the provider answered, by its code in OAuth 2.0."""
    match code:
        case "access_denied":
            sentence = f"{title} did not let you in: the log-in was denied or cancelled there."
            status = HTTPStatus.FORBIDDEN
        case "invalid_client" | "unauthorized_client":
            sentence = (
                f"{title} does not accept this console's own credentials:"
                f" INGEST_OIDC_CLIENT_ID or {SECRET} is wrong."
            )
            status = HTTPStatus.BAD_GATEWAY
        case "invalid_grant":
            sentence = f"{title} says that this log-in has expired or was used: begin again."
            status = HTTPStatus.BAD_REQUEST
        case _:
            said = f" ({code})" if _CODE.fullmatch(code) else ""
            sentence = f"{title} refused the log-in{said}: begin again."
            status = HTTPStatus.BAD_GATEWAY
    reason = code if _CODE.fullmatch(code) else "refused"
    return LoginFailed(sentence, reason=reason, status=status)
