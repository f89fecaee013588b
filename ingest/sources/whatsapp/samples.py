"""Bodies as Meta sends them, for `ingest send`: documented examples, and others like them."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Any

from ingest.sources.whatsapp.updates import FIELD, OBJECT

Fields = dict[str, Any]

WABA_ID = "102290129340398"
PHONE_NUMBER_ID = "106540352242922"
DISPLAY_NUMBER = "15550783881"
METADATA = {"display_phone_number": DISPLAY_NUMBER, "phone_number_id": PHONE_NUMBER_ID}

# With the values of the reference's examples of a text message and of a status.
DOCUMENTED: tuple[bytes, ...] = (
    (
        b'{"object":"whatsapp_business_account","entry":[{"id":"102290129340398","changes":['
        b'{"value":{"messaging_product":"whatsapp","metadata":{"display_phone_number":"15550783881",'
        b'"phone_number_id":"106540352242922"},"contacts":[{"profile":{"name":"Sheena Nelson"},'
        b'"wa_id":"16505551234"}],"messages":[{"from":"16505551234",'
        b'"id":"wamid.HBgLMTY1MDM4Nzk0MzkVAgASGBQzQTRBNjU5OUFFRTAzODEwMTQ0RgA=",'
        b'"timestamp":"1749416383","type":"text",'
        b'"text":{"body":"Does it come in another color?"}}]},"field":"messages"}]}]}'
    ),
    (
        b'{"object":"whatsapp_business_account","entry":[{"id":"102290129340398","changes":['
        b'{"value":{"messaging_product":"whatsapp","metadata":{"display_phone_number":"15550783881",'
        b'"phone_number_id":"106540352242922"},"statuses":['
        b'{"id":"wamid.HBgLMTY1MDM4Nzk0MzkVAgASGBQzQUFERjg0NDEzNDdFODU3MUMxMAA=",'
        b'"status":"sent","timestamp":"1750030073","recipient_id":"16505551234"}]},'
        b'"field":"messages"}]}]}'
    ),
)

STATUSES = ("sent", "delivered", "read", "played", "failed")

_NAMES = ("نورة العتيبي", "Fahad Al-Harbi", "سارة", "Sheena Nelson", "Maha", "محمد O'Neil")
_TEXTS = (
    "السلام عليكم، هل المنتج متوفر؟",
    "Does it come in another color?",
    "كم سعر التوصيل إلى جدة؟ 🖤",
    "Where is my order?",
)
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_WITHOUT_PHONE = 0.3
"""Share of the people who have a username, and whose number is not told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody who writes to the business."""

    name: str
    user_id: str
    """Business-scoped."""
    wa_id: str | None
    """The phone number; None: it is not told."""
    username: str | None

    def contact(self, *, with_username: bool = True) -> Fields:
        """Return the element of `contacts[]`."""
        profile = {"name": self.name} | _told(username=self.username if with_username else None)
        return {"profile": profile, "user_id": self.user_id} | _told(wa_id=self.wa_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One update, yet to be put into a body."""

    type: str
    """The event type."""
    at: datetime
    list_name: str | None
    """The list of the field `messages` that it is an element of; None: it is a change."""
    content: Fields
    """The element, or the value of the change."""
    contact: Fields | None = None


def pack(updates: Iterable[Update]) -> bytes:
    """Return the body of some updates: lists of one name share a change."""
    lists: dict[str, Fields] = {}
    changes: list[Fields] = []
    newest = 0
    for update in updates:
        newest = max(newest, int(update.at.timestamp()))
        if update.list_name is None:
            changes.append({"value": update.content, "field": update.type})
            continue
        value = lists.get(update.list_name)
        if value is None:
            value = lists[update.list_name] = {
                "messaging_product": "whatsapp",
                "metadata": METADATA,
            }
            changes.append({"value": value, "field": FIELD})
        if update.contact is not None:
            contacts = value.setdefault("contacts", [])
            if update.contact not in contacts:
                contacts.append(update.contact)
        value.setdefault(update.list_name, []).append(update.content)
    entry = {"id": WABA_ID, "time": newest, "changes": changes}
    # Meta escapes what is not ASCII.
    return json.dumps({"object": OBJECT, "entry": [entry]}, separators=(",", ":")).encode()


def make(event_type: str, random: Random, now: datetime) -> bytes:
    """Return a new event of `event_type` that happened `now`; a type that we do not know has no
    content."""
    prefix, _, kind = event_type.partition(".")
    if event_type == "errors":
        content = {"code": 131000, "title": "Something went wrong"}
        update = Update(type=event_type, at=now, list_name="errors", content=content)
    elif prefix == "messages" and kind:
        update = message(kind, random, now, person(random))
    elif prefix == "statuses" and kind:
        update = status(kind, random, now, person(random), message_id(random))
    else:
        build: Callable[[Random, datetime], Fields] = _CHANGES.get(event_type, _nothing)
        content = build(random, now)
        update = Update(type=event_type, at=now, list_name=None, content=content)
    return pack([update])


def types() -> tuple[str, ...]:
    """Return the event types of which there are samples."""
    return (
        *(f"messages.{kind}" for kind in _MESSAGES),
        *(f"statuses.{state}" for state in STATUSES),
        "errors",
        *_CHANGES,
    )


def person(random: Random) -> Person:
    """Return somebody new."""
    has_username = random.random() < _WITHOUT_PHONE
    return Person(
        name=random.choice(_NAMES),
        user_id=user_id(random),
        wa_id=None if has_username else f"9665{random.randrange(10**8):08d}",
        username=f"user{random.randrange(10**6)}" if has_username else None,
    )


def user_id(random: Random) -> str:
    """Return a new business-scoped user id."""
    return f"SA.{random.randrange(10**19, 10**20)}"


def message_id(random: Random) -> str:
    """Return a new id of a message."""
    return f"wamid.{random.getrandbits(192):048X}"


def message(kind: str, random: Random, at: datetime, sender: Person) -> Update:
    """Return a message of a type."""
    content: Fields = {"id": message_id(random), "timestamp": _stamp(at), "type": kind}
    content |= _told(**{"from": sender.wa_id}, from_user_id=sender.user_id)
    build: Callable[[Random, Person], Fields] = _MESSAGES.get(kind, _nothing)
    content |= build(random, sender)
    contact = None if kind == "system" else sender.contact()
    return Update(
        type=f"messages.{kind}", at=at, list_name="messages", content=content, contact=contact
    )


def status(state: str, random: Random, at: datetime, recipient: Person, of_message: str) -> Update:
    """Return a status of a message that the business sent."""
    content: Fields = {"id": of_message, "status": state, "timestamp": _stamp(at)}
    content |= _told(recipient_id=recipient.wa_id)
    if state == "failed":  # no contact, and no user id where a number was written to
        content |= _told(recipient_user_id=None if recipient.wa_id else recipient.user_id)
        content["errors"] = [random.choice(_FAILURES)]
        contact = None
    else:
        content["recipient_user_id"] = recipient.user_id
        contact = recipient.contact(with_username=state != "sent")
    if state == "sent":
        content["pricing"] = {"billable": True, "pricing_model": "PMP", "category": "utility"}
    return Update(
        type=f"statuses.{state}", at=at, list_name="statuses", content=content, contact=contact
    )


def _stamp(moment: datetime) -> str:
    return str(int(moment.timestamp()))


def _told(**fields: str | None) -> Fields:
    """Return the fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}


def _token(random: Random, length: int) -> str:
    return "".join(random.choices(_ALPHABET, k=length))


def _media(random: Random, mime_type: str, **more: Any) -> Fields:
    return {
        "id": str(random.randrange(10**14, 10**15)),
        "mime_type": mime_type,
        "sha256": _token(random, 43) + "=",
    } | more


def _interactive(random: Random, _sender: Person) -> Fields:
    reply = random.choice(
        (
            {"type": "button_reply", "button_reply": {"id": "yes", "title": "Yes"}},
            {"type": "list_reply", "list_reply": {"id": "size-l", "title": "L"}},
            {
                "type": "nfm_reply",
                "nfm_reply": {
                    "name": "flow",
                    "body": "Sent",
                    "response_json": '{"flow_token":"t","size":"L"}',
                },
            },
        )
    )
    return {"interactive": reply}


def _order(random: Random, _sender: Person) -> Fields:
    item = {
        "product_retailer_id": f"sku-{random.randrange(1_000)}",
        "quantity": random.randrange(1, 5),
        "item_price": random.randrange(10_00, 500_00) / 100,
        "currency": "SAR",
    }
    return {"order": {"catalog_id": "194836987003835", "text": "", "product_items": [item]}}


def _system(random: Random, sender: Person) -> Fields:
    """Return that the sender's number changed; of who has none that is told, the user id alone."""
    new = {"user_id": user_id(random)}
    if sender.wa_id is None:
        what = {"type": "user_changed_user_id", "body": "User changed their user id"} | new
    else:
        number = f"9665{random.randrange(10**8):08d}"
        what = {"type": "user_changed_number", "body": f"User A changed to {number}"}
        what |= new | {"wa_id": number}
    return {"system": what}


def _contacts(random: Random, _sender: Person) -> Fields:
    name = random.choice(_NAMES)
    phone = {"phone": f"+9665{random.randrange(10**8):08d}", "type": "CELL"}
    return {"contacts": [{"name": {"formatted_name": name}, "phones": [phone]}]}


def _nothing(_random: Random, _other: Any) -> Fields:
    return {}


_MESSAGES: Mapping[str, Callable[[Random, Person], Fields]] = {
    "text": lambda random, _: {"text": {"body": random.choice(_TEXTS)}},
    "image": lambda random, _: {"image": _media(random, "image/jpeg", caption="؟")},
    "audio": lambda random, _: {"audio": _media(random, "audio/ogg; codecs=opus", voice=True)},
    "video": lambda random, _: {"video": _media(random, "video/mp4")},
    "document": lambda random, _: {
        "document": _media(random, "application/pdf", filename="invoice.pdf")
    },
    "sticker": lambda random, _: {"sticker": _media(random, "image/webp", animated=False)},
    "location": lambda random, _: {
        "location": {
            "latitude": round(random.uniform(16, 32), 6),
            "longitude": round(random.uniform(35, 55), 6),
        }
    },
    "contacts": _contacts,
    "interactive": _interactive,
    "button": lambda _, __: {"button": {"payload": "yes", "text": "Yes"}},
    "order": _order,
    "reaction": lambda random, _: {"reaction": {"message_id": message_id(random), "emoji": "👍"}},
    "system": _system,
    "unsupported": lambda _, __: {
        "errors": [{"code": 131051, "title": "Message type unknown"}],
    },
}

_FAILURES: tuple[Fields, ...] = (
    {"code": 131026, "title": "Message undeliverable"},
    {"code": 131047, "title": "Re-engagement message"},
    {"code": 131049, "title": "Withheld to maintain healthy ecosystem engagement"},
)


def _template(random: Random) -> Fields:
    return {
        "message_template_id": random.randrange(10**14, 10**15),
        "message_template_name": "order_confirmation",
        "message_template_language": "ar",
    }


def _user_id_update(random: Random, now: datetime) -> Fields:
    someone = person(random)
    change: Fields = {
        "detail": "The user's phone number changed",
        "user_id": {"previous": someone.user_id, "current": user_id(random)},
        "timestamp": _stamp(now),
    }
    update = _told(wa_id=someone.wa_id) | change
    return {"messaging_product": "whatsapp", "metadata": METADATA, "user_id_update": [update]}


_CHANGES: Mapping[str, Callable[[Random, datetime], Fields]] = {
    "message_template_status_update": lambda random, _: (
        {"event": random.choice(("APPROVED", "REJECTED", "PAUSED")), "reason": "NONE"}
        | _template(random)
    ),
    "message_template_quality_update": lambda random, _: (
        {"previous_quality_score": "GREEN", "new_quality_score": "YELLOW"} | _template(random)
    ),
    "template_category_update": lambda random, _: (
        {"previous_category": "UTILITY", "new_category": "MARKETING"} | _template(random)
    ),
    "phone_number_quality_update": lambda _, __: {
        "display_phone_number": DISPLAY_NUMBER,
        "event": "UPGRADE",
        "current_limit": "TIER_10K",
    },
    "account_update": lambda _, __: {"event": "VERIFIED_ACCOUNT", "phone_number": DISPLAY_NUMBER},
    "account_alerts": lambda _, __: {
        "entity_type": "WABA",
        "entity_id": WABA_ID,
        "alert_info": {"alert_severity": "INFORMATIONAL", "alert_status": "ACTIVE"},
    },
    "account_review_update": lambda _, __: {"decision": "APPROVED"},
    "business_capability_update": lambda _, __: {"max_daily_conversation_per_phone": 10_000},
    "business_username_updates": lambda _, __: {
        "display_phone_number": DISPLAY_NUMBER,
        "username": "shop",
        "status": "approved",
    },
    "user_id_update": _user_id_update,
}
