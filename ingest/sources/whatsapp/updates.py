"""The updates of a parsed body: where they are, and what they are called.

An update is one element of `messages[]`, `statuses[]` or `errors[]` of a change whose field is
`messages`; of any other field, and of a change without these lists, it is the change itself.
"""

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from ingest import strict_json
from ingest.sources.base import EventIdentity, column_type, join_event_id
from ingest.sources.bodies import refuse

OBJECT = "whatsapp_business_account"
FIELD = "messages"
"""The field whose changes hold lists of updates."""
LISTS = ("messages", "statuses", "errors")

_UNTYPED = "unknown"
"""What a message without a type is called."""


class Update(NamedTuple):
    """One update, and what it is in."""

    entry: dict[str, Any]
    change: dict[str, Any]
    list_name: str | None
    """One of `LISTS`; None: the update is the change."""
    element: dict[str, Any]
    """The element of the list, or the change."""

    @property
    def type(self) -> str:
        """Return the event type, such as `messages.text`, `statuses.read` or `security`."""
        if self.list_name == "messages":
            kind = self.element.get("type")
            return f"messages.{kind}" if isinstance(kind, str) and kind else f"messages.{_UNTYPED}"
        if self.list_name == "statuses":
            return f"statuses.{self.element['status']}"
        return self.list_name or str(self.change["field"])

    def identify(self) -> EventIdentity:
        """Return the id and the fingerprint, which do not depend on what else was in the body."""
        if self.list_name == "messages":
            event_id = join_event_id("messages", self.element["id"])
            content: Any = self.element
        elif self.list_name == "statuses":
            parts = [self.element["id"], self.element["status"]]
            participant = self.element.get("recipient_participant_id")
            if isinstance(participant, str) and participant:  # a group's status is each member's
                parts.append(participant)
            event_id = join_event_id("statuses", *parts)
            content = self.element
        else:
            metadata = self.change["value"].get("metadata") if self.list_name else None
            content = [self.entry.get("id"), self.entry.get("time"), metadata, self.element]
            digest = hashlib.sha256(strict_json.canonical(content)).hexdigest()
            event_id = join_event_id(self.type, digest, mark="#")
        return EventIdentity(
            event_id=event_id,
            type=column_type(self.type),
            fingerprint=hashlib.sha256(strict_json.canonical(content)).digest(),
        )


def only_update(fields: dict[str, Any]) -> Update:
    """Return the one update of a body.

    Raises:
        InvalidEnvelope: there is none, there are several, or it is broken.
    """
    if fields.get("object") != OBJECT:
        refuse("object_unknown", f"`object` is not {OBJECT}")
    updates = _updates(fields)
    update = next(updates, None)
    if update is None:
        refuse("no_update", "there is no update in it")
    if next(updates, None) is not None:
        refuse("several_updates", "there are several updates in it")
    return update


def _updates(fields: dict[str, Any]) -> Iterator[Update]:
    for entry in _list(fields, "entry"):
        if not isinstance(entry, dict):
            refuse("entry_not_object", "an entry is not an object")
        for change in _list(entry, "changes"):
            yield from _of_change(entry, change)


def _of_change(entry: dict[str, Any], change: Any) -> Iterator[Update]:
    if not isinstance(change, dict):
        refuse("change_not_object", "a change is not an object")
    field, value = change.get("field"), change.get("value")
    if not isinstance(field, str) or not field:
        refuse("field_not_string", "the `field` of a change is not a string")
    if not isinstance(value, dict):
        refuse("value_not_object", "the `value` of a change is not an object")
    names = [name for name in LISTS if field == FIELD and value.get(name, []) != []]
    if not names:
        yield Update(entry, change, None, change)
    for name in names:
        for element in _list(value, name):
            _check(name, element)
            yield Update(entry, change, name, element)


def _check(list_name: str, element: Any) -> None:
    if not isinstance(element, dict):
        refuse("element_not_object", f"an element of `{list_name}` is not an object")
    needed = {"messages": ("id",), "statuses": ("id", "status")}.get(list_name, ())
    for name in needed:
        if not isinstance(element.get(name), str) or not element[name]:
            refuse(f"{name}_missing", f"an element of `{list_name}` has no `{name}`")


def _list(fields: dict[str, Any], name: str) -> list[Any]:
    found = fields.get(name)
    if not isinstance(found, list):
        refuse(f"{name}_not_array", f"`{name}` is not an array")
    return found
