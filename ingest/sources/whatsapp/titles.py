"""What the updates of WhatsApp say in a few words."""

from collections.abc import Callable, Mapping
from typing import Any

from ingest.sources.bodies import lookup
from ingest.sources.titles import Part, Title, person, phone, private, shown, title
from ingest.sources.whatsapp.updates import Update

Fields = Mapping[str, Any]

_TEXTS = (
    *("text.body", "button.text", "interactive.button_reply.title", "interactive.list_reply.title"),
    *("image.caption", "video.caption", "document.caption", "document.filename"),
    *("interactive.nfm_reply.body", "order.text", "system.body"),
)
"""Where messages of any type hold what somebody wrote or chose."""
_WRITTEN = ("text", "button", "interactive")
"""Types whose messages are what they say."""
_CALLED = {"system": "Notice", "unsupported": "Unsupported message"}


def of_update(update: Update) -> Title | None:
    """Return the title of an update; None: what it needs is not in it."""
    if update.list_name == "messages":
        return _message(update)
    if update.list_name == "statuses":
        return _status(update.element)
    if update.list_name == "errors":
        return _error(update.element)
    field, value = update.change["field"], update.change["value"]
    make = _CHANGES.get(field)
    return None if make is None else make(value)


def _message(update: Update) -> Title | None:
    element = update.element
    sender = _sender(update)
    kind = update.type.partition(".")[2]
    if kind == "reaction":
        return title("Reaction ", private(lookup(element, "reaction.emoji")), " from ", sender)
    what = "Message" if kind in _WRITTEN else shown(_CALLED.get(kind, kind.capitalize()))
    texts = (private(lookup(element, path)) for path in _TEXTS)
    text = next(filter(None, texts), None)
    return title(what, " from ", sender, ": ", text) or title(what, " from ", sender)


def _sender(update: Update) -> Part | None:
    element, value = update.element, update.change["value"]
    name = lookup(value, "contacts.0.profile.name")
    return person(name, element.get("from") or element.get("from_user_id"))


def _status(element: Fields) -> Title | None:
    status = shown(element.get("status"))
    recipient = phone(element.get("recipient_id") or element.get("recipient_user_id"))
    reason = shown(lookup(element, "errors.0.title"))
    return (
        title("Status ", status, ", to ", recipient, ": ", reason)
        or title("Status ", status, ", to ", recipient)
        or title("Status ", status)
    )


def _error(element: Fields) -> Title | None:
    return title("Error ", shown(element.get("code")), ": ", shown(element.get("title")))


def _template(value: Fields, *words: str | Part | None) -> Title | None:
    return title("Template ", shown(value.get("message_template_name")), " ", *words)


def _lower(value: object) -> Part | None:
    return shown(value.lower().replace("_", " ")) if isinstance(value, str) else None


def _user_id_update(value: Fields) -> Title | None:
    update = lookup(value, "user_id_update.0")
    if not isinstance(update, dict):
        return None
    number = phone(update.get("wa_id") or lookup(update, "user_id.previous"))
    return title("User id of ", number, " changed")


_CHANGES: Mapping[str, Callable[[Fields], Title | None]] = {
    "message_template_status_update": lambda value: _template(value, _lower(value.get("event"))),
    "message_template_quality_update": lambda value: _template(
        value, "quality ", _lower(value.get("new_quality_score"))
    ),
    "template_category_update": lambda value: _template(
        value, "is now ", _lower(value.get("new_category"))
    ),
    "phone_number_quality_update": lambda value: title(
        "Phone number quality: ", _lower(value.get("event"))
    ),
    "account_update": lambda value: title("Account: ", _lower(value.get("event"))),
    "account_alerts": lambda value: title(
        "Account alert: ", _lower(lookup(value, "alert_info.alert_severity"))
    ),
    "account_review_update": lambda value: title("Account ", _lower(value.get("decision"))),
    "business_username_updates": lambda value: title(
        "Username ", shown(value.get("username")), " ", shown(value.get("status"))
    ),
    "user_id_update": _user_id_update,
}
