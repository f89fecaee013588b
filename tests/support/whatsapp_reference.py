"""The read model of WhatsApp in plain Python, from its rules alone: what the tables must equal.

Every event is taken apart into statements of the form "at this place in the order, this entity has
this value"; of a field's statements the last one counts.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

Row = dict[str, Any]
Model = dict[str, dict[Any, Row]]

LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)
STATUS_ORDER = ["sent", "failed", "delivered", "read", "played", "deleted"]
MESSAGE_COLUMNS = (
    *("direction", "waba_id", "phone_number_id", "contact_user_id", "contact_phone", "group_id"),
    *("type", "text", "media_id", "mime_type", "sha256", "filename", "reply_to", "content"),
    *("timestamp", "status", "status_at", "error_code", "error_title", "error_details"),
    "failed_at",
)
TEMPLATE_COLUMNS = (
    *("waba_id", "name", "language", "status", "reason", "quality", "category"),
    *("correct_category", "components"),
)
TEMPLATE_FIELDS = {
    "message_template_status_update": {"status": "event", "reason": "reason"},
    "message_template_quality_update": {"quality": "new_quality_score"},
    "message_template_components_update": {},
    "template_category_update": {
        "category": "new_category",
        "correct_category": "correct_category",
    },
}
CHANGES = ("user_changed_number", "user_changed_user_id")


class Told:
    """An event's body, taken apart."""

    def __init__(self, event_id: str, body: bytes) -> None:
        entry = json.loads(body)["entry"][0]
        change = entry["changes"][0]
        self.event_id = event_id
        self.waba_id = entry["id"]
        self.sent_at = moment(entry.get("time"))
        self.field = change["field"]
        self.value = change["value"]
        is_messages = self.field == "messages"
        self.kind = next(
            (
                kind
                for kind in ("messages", "statuses", "errors")
                if is_messages and kind in self.value
            ),
            self.field,
        )
        self.item = self.value[self.kind][0] if is_messages else self.value
        self.dated = moment(self.item.get("timestamp")) or self.sent_at
        self.at = self.dated or LONG_AGO


def moment(value: object) -> datetime | None:
    """A time of Meta's: seconds since the epoch."""
    spelled = str(value)
    is_time = len(spelled) == 10 and spelled.isdigit()
    return datetime.fromtimestamp(int(spelled), UTC) if is_time else None


def text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def phone(value: object) -> str | None:
    digits = str(value).removeprefix("+") if isinstance(value, str | int) else ""
    return digits if digits.isdecimal() else None


def user_id(value: object) -> str | None:
    return value if isinstance(value, str) and value and not value.isdecimal() else None


def present(row: Row) -> Row:
    """What is there."""
    return {name: value for name, value in row.items() if value is not None}


def whatsapp_model(bodies: Mapping[str, bytes]) -> Model:
    """Every table, of a set of events by their ids."""
    told = [Told(event_id, body) for event_id, body in bodies.items()]
    return {
        "whatsapp_messages": messages(told),
        "whatsapp_message_statuses": history(told),
        "whatsapp_contacts": contacts(told),
        "whatsapp_templates": templates(told),
        "whatsapp_accounts": accounts(told),
    }


def rank(one: Told) -> int:
    if one.kind == "messages":
        return -2
    status = one.item["status"]
    return STATUS_ORDER.index(status) if status in STATUS_ORDER else -1


def messages(told: list[Told]) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    ours = [one for one in told if one.kind in ("messages", "statuses")]
    for one in sorted(ours, key=lambda one: (rank(one), one.at, one.event_id)):
        row = rows.setdefault(one.item["id"], dict.fromkeys(MESSAGE_COLUMNS))
        row |= present(received(one) if one.kind == "messages" else progress(one))
        row |= {"waba_id": one.waba_id, "last_event_at": one.dated, "last_event_id": one.event_id}
        row |= present({"phone_number_id": one.value.get("metadata", {}).get("phone_number_id")})
    return rows


def received(one: Told) -> Row:
    item = one.item
    content = item.get(item.get("type"))
    fields = content if isinstance(content, dict) else {}
    chosen = fields.get("button_reply", fields)
    texts = [chosen.get(name) for name in ("body", "caption", "title", "emoji")]
    is_media = item.get("type") == "image"
    return {
        "direction": "inbound",
        "contact_user_id": user_id(item.get("from_user_id")),
        "contact_phone": phone(item.get("from")),
        "type": text(item.get("type")),
        "text": next((value for value in texts if isinstance(value, str)), None),
        "media_id": fields.get("id") if is_media else None,
        "mime_type": fields.get("mime_type") if is_media else None,
        "sha256": fields.get("sha256") if is_media else None,
        "reply_to": item.get("context", {}).get("id") or fields.get("message_id"),
        "content": content if isinstance(content, dict | list) else None,
        "timestamp": moment(item.get("timestamp")),
    }


def progress(one: Told) -> Row:
    item = one.item
    is_group = item.get("recipient_type") == "group"
    row = {
        "direction": "outbound",
        "group_id": item.get("recipient_id") if is_group else None,
        "contact_user_id": None if is_group else user_id(item.get("recipient_user_id")),
        "contact_phone": None if is_group else phone(item.get("recipient_id")),
        "status": item["status"],
        "status_at": moment(item.get("timestamp")),
    }
    return row | error(one, failed_at=moment(item.get("timestamp")))


def error(one: Told, **more: Any) -> Row:
    if one.item["status"] != "failed":
        return {}
    (first, *_) = one.item.get("errors") or [{}]
    return more | {
        "error_code": first.get("code"),
        "error_title": first.get("title"),
        "error_details": first.get("error_data", {}).get("details"),
    }


def history(told: list[Told]) -> dict[tuple[str, str], Row]:
    return {
        (one.item["id"], one.event_id): {
            "status": one.item["status"],
            "at": moment(one.item.get("timestamp")),
            "recipient_user_id": user_id(one.item.get("recipient_user_id")),
            "recipient_phone": phone(
                one.item.get(
                    "recipient_participant_id"
                    if one.item.get("recipient_type") == "group"
                    else "recipient_id"
                )
            ),
            "error_code": None,
            "error_title": None,
            "error_details": None,
            "pricing_category": one.item.get("pricing", {}).get("category"),
        }
        | error(one)
        for one in told
        if one.kind == "statuses"
    }


Place = tuple[datetime, str, int]
Statement = tuple[str, str, str | None]
"""An identity, a column, and its value; no column: only that it exists."""


def contacts(told: list[Told]) -> dict[str, Row]:
    """The rows of the persons: identities that lead to one another are one."""
    facts: dict[tuple[str, str], list[tuple[Place, str]]] = defaultdict(list)
    mentions: dict[str, list[tuple[datetime, str, datetime | None]]] = defaultdict(list)
    for one in told:
        for number, (dated, statements) in enumerate(identities(one)):
            place = (dated or LONG_AGO, one.event_id, -number)
            for identity, column, value in statements:
                mentions[identity].append((place[0], one.event_id, dated))
                if column and value is not None:
                    facts[identity, column].append((place, value))
    newest = {key: max(said) for key, said in facts.items()}
    ends = {identity: end(identity, newest) for identity in mentions}
    rows: dict[str, Row] = {}
    for contact in set(ends.values()):
        group = [identity for identity in ends if ends[identity] == contact]
        row: Row = {"user_id": user_id(contact)}
        for column in ("phone", "name", "username", "parent_user_id"):
            said = [(newest[one, column], one) for one in group if (one, column) in newest]
            # Of one event's statements of several identities, the greater identity's.
            said.sort(key=lambda each: (each[0][0][:2], each[1]))
            row[column] = said[-1][0][1] if said else None
        if row["user_id"] is None:
            row["phone"] = contact
        last = max((mention for one in group for mention in mentions[one]), key=lambda m: m[:2])
        _, event_id, dated = last
        rows[contact] = row | {"last_event_at": dated, "last_event_id": event_id}
    return rows


def end(identity: str, newest: Mapping[tuple[str, str], tuple[Place, str]]) -> str:
    """Where the changes of an identity lead; from a circle, where the newest of it led."""
    visited = [identity]
    while (visited[-1], "successor") in newest:
        following = newest[visited[-1], "successor"][1]
        if following in visited:
            circle = visited[visited.index(following) :]
            last = max(circle, key=lambda one: (newest[one, "successor"][0][:2], one))
            return newest[last, "successor"][1]
        visited.append(following)
    return visited[-1]


def identities(one: Told) -> Iterator[tuple[datetime | None, list[Statement]]]:
    """What an event says of identities, with the time of each part."""
    if one.kind == "user_id_update":
        for part in one.value["user_id_update"]:
            old = user_id(part["user_id"].get("previous"))
            new = user_id(part["user_id"].get("current"))
            parent = user_id(part.get("parent_user_id", {}).get("current"))
            dated = moment(part.get("timestamp")) or one.sent_at
            yield dated, changed((old, None), (new, phone(part.get("wa_id"))), parent)
    elif one.kind == "statuses":
        is_group = one.item.get("recipient_type") == "group"
        number = one.item.get("recipient_participant_id" if is_group else "recipient_id")
        yield one.dated, seen(one, one.item.get("recipient_user_id"), number)
    elif one.kind == "messages":
        person = (one.item.get("from_user_id"), one.item.get("from"))
        system = one.item.get("system", {})
        if system.get("type") in CHANGES:
            before = (user_id(person[0]), phone(person[1]))
            after = (user_id(system.get("user_id")), phone(system.get("wa_id")))
            yield one.dated, changed(before, after, None)
        else:
            yield one.dated, seen(one, *person)


def seen(one: Told, sent_id: object, sent_phone: object) -> list[Statement]:
    contact = (one.value.get("contacts") or [{}])[0]
    uid, number = user_id(sent_id), phone(sent_phone)
    theirs = user_id(contact.get("user_id"))
    profile: Row = {}
    if theirs is None or uid in (None, theirs):
        uid, number = uid or theirs, number or phone(contact.get("wa_id"))
        profile = contact.get("profile", {}) | {"parent": user_id(contact.get("parent_user_id"))}
    identity = uid or number
    if identity is None:
        return []
    statements: list[Statement] = [
        (identity, "", None),
        (identity, "name", text(profile.get("name"))),
        (identity, "username", text(profile.get("username"))),
        (identity, "parent_user_id", profile.get("parent")),
    ]
    if uid and number:
        statements += [(uid, "phone", number), (number, "successor", uid)]
    return statements


Names = tuple[str | None, str | None]


def changed(old: Names, new: Names, parent: str | None) -> list[Statement]:
    """One person goes by other names: user id and phone number, as far as they are known."""
    statements: list[Statement] = []
    if old[0] and new[1] and not new[0]:
        new = (old[0], new[1])
    # What the new names say counts where both speak of one identity.
    links: Row = {}
    for uid, number in (old, new):
        if uid and number:
            links[number] = uid
    before, after = old[0] or old[1], new[0] or new[1]
    if before and after and before != after:
        links[before] = after
    statements += [(identity, "", None) for identity in (before, after) if identity]
    statements += [(name, "successor", target) for name, target in links.items()]
    if new[0]:
        statements += [(new[0], "phone", new[1]), (new[0], "parent_user_id", parent)]
    elif new[1]:
        statements.append((new[1], "parent_user_id", parent))
    return statements


def templates(told: list[Told]) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    ours = [one for one in told if one.field in TEMPLATE_FIELDS]
    for one in sorted(ours, key=lambda one: (one.sent_at or LONG_AGO, one.event_id)):
        row = rows.setdefault(
            str(one.value["message_template_id"]), dict.fromkeys(TEMPLATE_COLUMNS)
        )
        names = {"name": "message_template_name", "language": "message_template_language"}
        names |= TEMPLATE_FIELDS[one.field]
        row |= present({column: text(one.value.get(name)) for column, name in names.items()})
        row |= {
            "waba_id": one.waba_id,
            "last_event_at": one.sent_at,
            "last_event_id": one.event_id,
        }
        if one.field == "message_template_components_update":
            row["components"] = one.value
    return rows


def accounts(told: list[Told]) -> dict[tuple[str, str, str], Row]:
    rows: dict[tuple[str, str, str], Row] = {}
    ours = [one for one in told if one.kind in ("errors", "account_update", "security")]
    for one in sorted(ours, key=lambda one: (one.sent_at or LONG_AGO, one.event_id)):
        subject = one.value.get("phone_number") or one.value.get("metadata", {}).get(
            "display_phone_number", ""
        )
        rows[one.waba_id, one.kind, subject] = {
            "value": one.item,
            "at": one.sent_at,
            "event_id": one.event_id,
        }
    return rows
