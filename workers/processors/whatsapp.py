"""Reading the updates of Meta's WhatsApp Cloud API.

An event's body is a body of Meta's with exactly one update: one entry, one change, and in it one
message, status or error, or the whole value of any other field. Fields are named as in Meta's
"Webhooks reference" and "Business-scoped user IDs" (2026).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ingest import strict_json
from ingest.text import is_storable, storable
from ingest.timestamps import parse_timestamp
from workers.control import Discard
from workers.event import Event
from workers.processors import feeds, fields

# Named one by one: a pattern would slow down the admission of every event of every source, and
# would match other sources' types.
MESSAGE_TYPES = tuple(
    f"messages.{name}"
    for name in (
        *("text", "image", "audio", "video", "document", "sticker", "location", "contacts"),
        *("interactive", "button", "order", "reaction", "system", "request_welcome", "edit"),
        *("revoke", "ephemeral", "unsupported", "unknown"),
    )
)
STATUS_TYPES = tuple(
    f"statuses.{name}"
    for name in ("sent", "delivered", "read", "played", "failed", "deleted", "warning", "pending")
)
MODEL = "whatsapp"
_KEY_LIMIT = 500
_PHONE_DIGITS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """The one thing that an event tells."""

    waba_id: str | None
    """The WhatsApp business account; None: it is not said."""
    sent_at: datetime | None
    """The entry's time; most bodies have none."""
    value: Mapping[str, Any]

    def only(self, name: str) -> Mapping[str, Any]:
        """Return the one element of a list in the value: a message, a status or an error.

        Raises:
            Discard: there is none.
        """
        return _only(self.value, name)

    @property
    def account(self) -> dict[str, str]:
        """Return the column that names the account, where it is said."""
        return {} if self.waba_id is None else {"waba_id": self.waba_id}

    @property
    def contact(self) -> Mapping[str, Any]:
        """Return what is said of the person; empty: nothing."""
        contacts = self.value.get("contacts")
        return mapping(contacts[0]) if isinstance(contacts, list) and contacts else {}


def updates(events: Sequence[Event]) -> list[tuple[Event, Update]]:
    """Return those of `events` that WhatsApp sent, with their updates. Other sources may have
    events of the same types.

    Raises:
        Discard: one of them has no update.
    """
    return [(event, update_of(event)) for event in feeds.of_model(events, MODEL)]


def update_of(event: Event) -> Update:
    """Return the update that an event tells of.

    Raises:
        Discard: there is none.
    """
    body = event.data if "entry" in event.data else mapping(strict_json.loads(event.body))
    entry = _only(body, "entry")
    change = _only(entry, "changes")
    return Update(
        waba_id=identifier("id", entry.get("id")),
        sent_at=parse_timestamp(entry.get("time")),
        value=mapping(change.get("value")),
    )


def mapping(value: object) -> Mapping[str, Any]:
    """Return a JSON object as it is, and anything else as an empty one."""
    return value if isinstance(value, dict) else {}


def user_id(_name: str, value: Any) -> str | None:
    """Return a business-scoped user id, such as `US.13491208655302741918`. One that consists of
    digits would be taken for a phone number, so it is unreadable."""
    if not isinstance(value, str) or not value or value.isdecimal():
        return None
    return value if len(value) <= _KEY_LIMIT and is_storable(value) else None


def phone(name: str, value: Any) -> str | None:
    """Return the digits of a phone number; Meta sends them without a plus sign."""
    written = fields.phone(name, value)
    digits = written.removeprefix("+") if written else ""
    is_number = digits.isascii() and digits.isdecimal() and len(digits) <= _PHONE_DIGITS
    return digits if is_number else None


def identifier(name: str, value: Any) -> str | None:
    """Return an id that is sent as a text or as a number."""
    written = fields.phone(name, value)
    return written if written and len(written) <= _KEY_LIMIT else None


def json_text(_name: str, value: Any) -> str | None:
    """Return an object or a list as JSON that a `jsonb` column takes."""
    if not isinstance(value, dict | list):
        return None
    return strict_json.canonical(_storable(value)).decode()


def _only(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    elements = data.get(name)
    if not isinstance(elements, list) or not elements or not isinstance(elements[0], dict):
        raise Discard(f"{name} is missing")
    return elements[0]


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list):
        return [_storable(element) for element in value]
    if isinstance(value, dict):
        return {storable(name): _storable(element) for name, element in value.items()}
    return value
