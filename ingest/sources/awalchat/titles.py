"""What AwalChat's events say in a few words."""

from collections.abc import Callable, Mapping
from typing import Any

from ingest.sources.titles import Title, amount, phone, private, shown, title

Data = Mapping[str, Any]


def of_event(event_type: str, data: Data) -> Title | None:
    """Return the title of an event; None: its type is not documented, or what it needs is not in
    it."""
    make = _MAKERS.get(event_type)
    return None if make is None else make(data)


def _message(data: Data) -> Title | None:
    kind = data.get("type")
    is_other = isinstance(kind, str) and kind != "text"
    what = shown(str(kind).capitalize()) if is_other else "Message"
    sender, text = phone(data.get("from")), private(data.get("body"))
    return title(what, " from ", sender, ": ", text) or title(what, " from ", sender)


def _status(data: Data) -> Title | None:
    return title("Status ", shown(data.get("status")))


def _conversation_created(data: Data) -> Title | None:
    number = shown(data.get("conversation_id"))
    other = phone(data.get("phone_number"))
    return title("Conversation ", number, " with ", other) or title("Conversation ", number)


def _conversation_updated(data: Data) -> Title | None:
    return title(
        "Conversation ", shown(data.get("conversation_id")), " ", shown(data.get("status"))
    )


def _order_created(data: Data) -> Title | None:
    number = shown(data.get("order_id"))
    total = amount(data.get("total"), data.get("currency"))
    return title("Order ", number, " created, ", total) or title("Order ", number, " created")


def _order_status(data: Data) -> Title | None:
    return title("Order ", shown(data.get("order_id")), " ", shown(data.get("new_status")))


def _contact(verb: str) -> Callable[[Data], Title | None]:
    def make(data: Data) -> Title | None:
        number = shown(data.get("contact_id")) or shown(data.get("id"))
        name = private(data.get("name"))
        return title("Contact ", number, f" {verb}: ", name) or title(
            "Contact ", number, f" {verb}"
        )

    return make


_MAKERS: Mapping[str, Callable[[Data], Title | None]] = {
    "message.received": _message,
    "message.status.updated": _status,
    "conversation.created": _conversation_created,
    "conversation.updated": _conversation_updated,
    "order.created": _order_created,
    "order.status.updated": _order_status,
    "contact.created": _contact("created"),
    "contact.updated": _contact("updated"),
}
