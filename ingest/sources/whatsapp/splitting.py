"""Split a body of many updates into bodies of one each.

The pieces are cut out of the text and put together again: nothing is written anew, so numbers keep
their digits and texts their escapes.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence, Set
from functools import partial
from typing import Any, NamedTuple

from ingest import strict_json
from ingest.sources.bodies import MAX_SPLIT_BYTES
from ingest.sources.whatsapp.updates import FIELD, LISTS, OBJECT

MAX_BYTES = MAX_SPLIT_BYTES
"""Of all bodies together. Those of 1,000 updates with Meta's largest body, 3 MB, take 4 MB."""

# Numbers stay text: of the values only names and ids are looked at.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str)
_SPACES = " \t\n\r"
_SPACE = re.compile(f"[{_SPACES}]*")
_BOM = "\ufeff"


class _Node(NamedTuple):
    """A value in the text of a body."""

    text: str
    """As it is spelled."""
    value: Any = None
    """The parsed value of a node that is not looked into."""
    members: "dict[str, _Member] | None" = None
    """The fields of an object that is looked into."""
    items: "list[_Node] | None" = None
    """The elements of an array that is looked into."""

    def node(self, name: str) -> "_Node | None":
        """Return the value of a field, if this is an object with it."""
        return self.members[name].node if self.members and name in self.members else None

    def elements(self, name: str) -> "list[_Node] | None":
        """Return the elements of a field, if it is an array."""
        node = self.node(name)
        return None if node is None else node.items


class _Member(NamedTuple):
    """A field of an object in the text of a body."""

    text: str
    """As it is spelled, with its name."""
    node: _Node


class _Frame(NamedTuple):
    """What stands before and behind a piece."""

    head: str = ""
    tail: str = ""

    def around(self, piece: str) -> str:
        """Return a piece with what stands around it."""
        return f"{self.head}{piece}{self.tail}"


_Reader = Callable[[str, int], tuple[_Node, int]]
"""Reads the value at a place of a JSON text. Returns it, and the place behind it."""


def split(body: bytes) -> Sequence[bytes] | None:
    """Return a body for each update, broken ones included; None: there are not several.

    A body that cannot be read, or whose updates are too large, is not split either.
    """
    try:
        fields = strict_json.loads(body)
    except strict_json.InvalidJson:
        return None
    if not isinstance(fields, dict) or fields.get("object") != OBJECT:
        return None
    text = body.decode().removeprefix(_BOM)
    root, _ = _body(text, _behind_space(text, 0))
    bodies: list[bytes] = []
    size = 0
    for update in _updates(root):
        bodies.append(update.encode())
        size += len(bodies[-1])
        if size > MAX_BYTES:
            return None
    return bodies if len(bodies) > 1 else None


def _updates(root: _Node) -> Iterator[str]:
    """Yield the text of a body for each update."""
    of_entry = _inside(root, "entry", _Frame())
    for entry in root.elements("entry") or ():
        changes = entry.elements("changes")
        if changes is None:
            yield of_entry.around(entry.text)
            continue
        of_change = _inside(entry, "changes", of_entry)
        for change in changes:
            for update in _of_change(change):
                yield of_change.around(update)


def _of_change(change: _Node) -> Iterator[str]:
    """Yield the text of a change for each update in it."""
    field, value = change.node("field"), change.node("value")
    lists = value.members if value and value.members else {}
    names = [name for name in LISTS if name in lists and lists[name].node.items != []]
    if field is None or field.value != FIELD or value is None or not names:
        yield change.text
        return
    contacts = _Contacts(value.elements("contacts") or ())
    left_out = {*LISTS, "contacts"} if value.elements("contacts") is not None else {*LISTS}
    head = f'{{{_others(change, {"value"})}"value":{{{_others(value, left_out)}'
    for name in names:
        elements = value.elements(name)
        if elements is None:
            yield f"{head}{lists[name].text}}}}}"
            continue
        for element in elements:
            yield f'{head}{contacts.of(element.value)}"{name}":[{element.text}]}}}}'


def _inside(node: _Node, name: str, frame: _Frame) -> _Frame:
    """Return what stands around an element of the object's array, within what is around both."""
    return _Frame(f'{frame.head}{{{_others(node, {name})}"{name}":[', f"]}}{frame.tail}")


def _others(node: _Node, left_out: Set[str]) -> str:
    """Return the fields of an object but for some, each with a comma behind it."""
    members = node.members or {}
    return "".join(f"{member.text}," for name, member in members.items() if name not in left_out)


class _Contacts:
    """The contacts of a change, by what updates call them."""

    def __init__(self, contacts: Sequence[_Node]) -> None:
        self._spelled: dict[tuple[str, str], str] = {}
        for contact in contacts:
            for name in ("user_id", "wa_id"):
                known_as = _text(contact.value, name)
                if known_as is not None:
                    self._spelled.setdefault((name, known_as), f'"contacts":[{contact.text}],')

    def of(self, element: Any) -> str:
        """Return the field with the contact that an update belongs to, or nothing."""
        if not self._spelled:
            return ""
        for name, known_as in (
            ("user_id", _text(element, "from_user_id", "recipient_user_id")),
            ("wa_id", _text(element, "from", "recipient_participant_id", "recipient_id")),
        ):
            if known_as is not None and (name, known_as) in self._spelled:
                return self._spelled[name, known_as]
        return ""


def _text(fields: Any, *names: str) -> str | None:
    """Return the first of some fields that is a text with something in it."""
    if not isinstance(fields, dict):
        return None
    values = (fields.get(name) for name in names)
    return next((value for value in values if isinstance(value, str) and value), None)


def _leaf(text: str, at: int) -> tuple[_Node, int]:
    value, end = _DECODER.raw_decode(text, at)
    return _Node(text[at:end], value), end


def _array(item: _Reader, text: str, at: int) -> tuple[_Node, int]:
    if text[at] != "[":
        return _leaf(text, at)
    start, at = at, _behind_space(text, at + 1)
    items = []
    while text[at] != "]":
        node, end = item(text, at)
        items.append(node)
        at = _behind_comma(text, end)
    return _Node(text[start : at + 1], items=items), at + 1


def _object(readers: dict[str, _Reader], text: str, at: int) -> tuple[_Node, int]:
    if text[at] != "{":
        return _leaf(text, at)
    start, at = at, _behind_space(text, at + 1)
    members: dict[str, _Member] = {}
    while text[at] != "}":
        name, end = _DECODER.raw_decode(text, at)
        value_at = _behind_space(text, _behind_space(text, end) + 1)
        node, end = readers.get(name, _leaf)(text, value_at)
        members[name] = _Member(text[at:end], node)  # the last of a name counts, as for `json`
        at = _behind_comma(text, end)
    return _Node(text[start : at + 1], members=members), at + 1


def _behind_space(text: str, at: int) -> int:
    if text[at] not in _SPACES:  # as usual: the pattern takes three times as long
        return at
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing, too


def _behind_comma(text: str, at: int) -> int:
    at = _behind_space(text, at)
    return _behind_space(text, at + 1) if text[at] == "," else at


_value = partial(_object, {name: partial(_array, _leaf) for name in (*LISTS, "contacts")})
_change = partial(_object, {"value": _value})
_entry = partial(_object, {"changes": partial(_array, _change)})
_body = partial(_object, {"entry": partial(_array, _entry)})
