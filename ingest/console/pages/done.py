"""What a page says after an action: what was done, where its record is, and the way back.

It is the entry of the audit log that is told, so it says neither more nor less than what happened,
whichever form was sent. A cookie carries the entry's number from the redirect to the next page, so
that no address holds it and no reload repeats it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import quote

from sqlalchemy import Engine
from starlette.requests import Request
from starlette.responses import Response

from ingest.console.auth.identity import Identity
from ingest.console.auth.request_info import is_refresh
from ingest.console.ui.formats import plural
from ingest.console.ui.paths import parse_number
from ingest.store.bulk import replay as bulk_actions
from ingest.store.bulk.replay import Operation
from ingest.store.reports import audit_log
from ingest.store.reports.audit_log import Action

COOKIE = "ingest_done"
_LIFETIME_S = 60
_AGAIN = ".again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """An action, as it is told to whoever did it."""

    sentence: str
    record: str
    """The address of its record."""
    back: str | None
    """The address of the form that takes it back; None: nothing does, or its page has one."""


def remember(response: Response, action: int, *, is_again: bool, is_secure: bool) -> None:
    """Let the next page tell an action.

    Args:
        response: the redirect to that page.
        action: its number in the audit log.
        is_again: whether it was done before, and its form was sent again.
        is_secure: whether the cookie is for TLS alone.
    """
    response.set_cookie(
        COOKIE,
        f"{action}{_AGAIN}" if is_again else str(action),
        max_age=_LIFETIME_S,
        httponly=True,
        samesite="lax",
        secure=is_secure,
    )


def read(engine: Engine, request: Request, by: Identity) -> Done | None:
    """Return what the user has just done; None: nothing. A refresh of another tab does not ask."""
    told = request.cookies.get(COOKIE, "")
    number = parse_number(told.removesuffix(_AGAIN))
    if number is None or is_refresh(request):
        return None
    with engine.connect() as connection:
        action = audit_log.one(connection, number)
        if action is None or (action.by, action.via, action.subject) != (
            by.name,
            by.via,
            by.subject,
        ):
            return None
        bulk_action = None
        if action.replay is not None:
            bulk_action = bulk_actions.numbered(connection, {action.replay}).get(action.replay)
    shown = describe(action, bulk_action)
    if not told.endswith(_AGAIN):
        return shown
    return replace(shown, sentence=f"Sent again, and done once: {shown.sentence}")


def forget(request: Request, response: Response) -> None:
    """Let no further page tell what this one has told."""
    if COOKIE in request.cookies and not is_refresh(request):
        response.delete_cookie(COOKIE, httponly=True, samesite="lax")


def describe(action: Action, bulk_action: Operation | None) -> Done:
    """Return what to say of an action, and of the bulk action that it began or changed."""
    if bulk_action is None:
        sentence = _SENTENCES.get(action.action, f"Done: {action.action}, {{}}.")
        return Done(
            sentence=sentence.format(action.target),
            record=f"/audit-log#action-{action.id}",
            back=_back(action),
        )
    name = f"{bulk_action.action.capitalize()} {bulk_action.id}"
    sentence = _OF_BULK_ACTIONS.get(action.action, f"Done: {action.action}, {{}}.")
    return Done(
        sentence=sentence.format(name, _of_how_many(bulk_action)),
        record=f"/bulk-actions/{bulk_action.id}",
        back=None,
    )


def _of_how_many(bulk_action: Operation) -> str:
    """Return the number of its jobs; that of a command's may be unknown until it has ended."""
    return "jobs" if bulk_action.total is None else plural(bulk_action.total, "job")


def _back(action: Action) -> str | None:
    """Return the address of the form that takes an action back."""
    if action.action in _REOPENED:
        return f"/{action.target.replace('failure ', 'failures/')}/reopen"
    verb = _OPPOSITES.get(action.action)
    return f"/processors/{quote(action.target)}/{verb}" if verb else None


_REOPENED = (
    *("acknowledge failure", "resolve failure", "mute failure"),
    "resolve failure when all has succeeded",
)
"""What is taken back by opening the failure again."""
_OPPOSITES: Mapping[str, str] = {"pause": "resume", "resume": "pause", "limit": "as-declared"}
_BEGUN = "{} has begun: {}."
_OF_BULK_ACTIONS: Mapping[str, str] = {
    "replay": _BEGUN,
    "discard": _BEGUN,
    "pause": "{} is paused: what has not begun of its {} waits.",
    "resume": "{} goes on with its {}.",
    "cancel": "{} is cancelled: what has not begun of its {} becomes what it was before.",
}
_SENTENCES: Mapping[str, str] = {
    "pause": "{} is paused: its jobs wait.",
    "resume": "{} is resumed: its jobs run again.",
    "limit": "{} has new limits, for the next jobs on.",
    "limit as declared": "The limits of {} are as its workers declare them.",
    "run": "{} runs now, whatever its schedule says.",
    "close breaker": "The breaker of {} is closed: its jobs run.",
    "probe": "The target of {} is probed now, with one of its jobs.",
    "retry": "The job of event {} runs now.",
    "acknowledge": "The alert {} is acknowledged: it is not told again unless it grows.",
    "unacknowledge": "The alert {} is not acknowledged any more: it is told again as before.",
    "test alert": "The channel was tested: {}.",
    "acknowledge failure": "The {} is acknowledged: somebody looks after it.",
    "resolve failure": "The {} is resolved: if it returns, it is open again, and an alert tells.",
    "resolve failure when all has succeeded": "The {} is resolved once everything of it has"
    " succeeded.",
    "mute failure": "The {} is muted.",
    "reopen failure": "The {} is open again.",
    "assign failure": "Assigned: {}.",
    "note on failure": "The note on {} is kept.",
    "resend": "An edited copy of event {} was sent.",
    "test event": "A test event was sent: {}.",
    "save view": "The view is saved: {}.",
    "rename view": "The view is renamed: {}.",
    "delete view": "The view is deleted: {}.",
    "search person": "The search for the person has begun: {}.",
    "erase person": "The person is being erased: {}.",
    "cancel erasure": "Nobody is erased: {} is cancelled.",
    "continue erasure": "The console goes on with {}.",
}
"""By what is done, with the entry's target."""
