"""What an operator types to say which events are meant: `state:dead type:order.* "a text"`.

A part is a filter and its value, or a text to search for. Values and texts with white space are
quoted; in quotes `\\"` and `\\\\` stand for `"` and `\\`. Several types are alternatives, and so
are several ids; everything else must all hold. What is not understood is told and ignored: where
events are changed, a query with problems must not be acted upon.
"""

import difflib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from ingest.phones import normal_phone
from ingest.store.search import related
from ingest.store.search.filters import EVENT_STATES, EventFilter
from ingest.text import is_storable
from ingest.timestamps import TIME_FORMS, parse_moment

MOST_PARTS = 50
"""Each costs a condition in SQL."""

FILTERS = {
    "type": "event type, `*` stands for anything",
    "state": f"one of {', '.join(EVENT_STATES)}",
    "processor": "with a job of this processor; its state then is that job's",
    "source": "who sent it",
    "key": "its first delivery was signed by the key of this id",
    "since": f"received then or later: {TIME_FORMS}",
    "until": "received before then, likewise",
    "conversation": "concerns the conversation of this id",
    "phone": "concerns whom has this number, however it is written, or this id",
    "order": "concerns the order of this id",
    "message": "concerns the message of this id",
    "contact": "concerns the contact of this id",
    "error": "a job is dead or retrying since an error of this type",
    "raised": "likewise, and the error was raised there: the last frame of its traceback",
    "replay": "has a job that this replay or discard acted on last; its state then is that job's",
    "taken_back": "this replay took it back, when it was paused or cancelled",
    "id": "its id, a delivery's, or its id at the sender",
}
"""What each filter asks for. Besides, a path into the body: `data.order_id:55`, `.event:…`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A part that was not understood, and ignored."""

    text: str
    position: int
    """Where in the text it begins, in characters."""
    message: str
    """A sentence that says why, and what would do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What a text means."""

    selection: EventFilter
    problems: tuple[Problem, ...]


def parse(text: str, *, now: datetime) -> Query:
    """Read a query; spans such as `2h` are before `now`. Never raises."""
    draft = _Draft(now=now)
    problems = []
    for number, part in enumerate(_parts(text)):
        is_beyond = number == MOST_PARTS
        complaint = _TOO_MANY if is_beyond else _take(draft, part)
        if complaint is not None:
            problems.append(Problem(text=part.spelled, position=part.position, message=complaint))
        if is_beyond:
            break
    return Query(selection=draft.selection(), problems=tuple(problems))


def spell(selection: EventFilter) -> str:
    """Return the text that `parse` reads as `selection`. The paths of its fields must not have
    white space, colons or quotes in them."""
    filters: list[tuple[str, str | None]] = [("id", str(event_id)) for event_id in selection.ids]
    filters += [("id", event_id) for event_id in selection.event_ids]
    filters += [("type", event_type) for event_type in selection.types]
    filters += [(name, getattr(selection, column)) for name, column in _ONCE.items()]
    filters += [("since", _spell_time(selection.since)), ("until", _spell_time(selection.until))]
    filters += [(name, _spell_number(getattr(selection, name))) for name in _NUMBERED]
    filters += selection.about
    filters += [(_spell_path(path), value) for path, value in selection.fields]
    spelled = [
        f"{name}:{_spell_value(name, value)}" for name, value in filters if value is not None
    ]
    return " ".join([*spelled, *(_quoted(searched, colons=False) for searched in selection.texts)])


def describe(selection: EventFilter) -> str:
    """Return a selection as the audit log shows it."""
    if not selection.ids:
        return spell(selection) or "everything"
    names = [str(event) for event in selection.ids[:3]]
    more = len(selection.ids) - len(names)
    rest = f" and {more} more" if more else ""
    processor = f" for {selection.processor}" if selection.processor else ""
    return ", ".join(names) + rest + processor


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    spelled: str
    position: int
    key: str | None
    value: str
    is_quoted: bool
    is_open: bool
    """Its quote is not closed."""


@dataclass(slots=True, kw_only=True)
class _Draft:
    """A selection in the making."""

    now: datetime
    conditions: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, value: object) -> None:
        self.conditions[name] = tuple(dict.fromkeys((*self.conditions.get(name, ()), value)))

    def selection(self) -> EventFilter:
        return EventFilter(**self.conditions)


def _parts(text: str) -> Iterator[_Part]:
    position = 0
    while position <= len(text) and (match := _PART.search(text, position)):
        end = match.end()
        key, quoted, plain = match["key"], match["quoted"], match["plain"]
        if plain and key is not None and key.lower() == "phone":
            end = _end_of_phone(text, match.start("plain"), end)
            plain = text[match.start("plain") : end]
        position = end if match[0] else end + 1
        if match[0]:
            yield _Part(
                spelled=text[match.start() : end],
                position=match.start(),
                key=key,
                value=plain if quoted is None else _ESCAPED.sub(r"\1", quoted),
                is_quoted=quoted is not None,
                is_open=quoted is not None and not match["closed"],
            )


def _end_of_phone(text: str, begin: int, end: int) -> int:
    """Where a phone number ends that is written in groups (`+966 51 111 0001`), the first of which
    ends at `end`: groups of digits belong to it until it is as long as a number may be."""
    if len(normal_phone(text[begin:end])) > _SHORT_OF_A_PHONE:
        return end
    while (group := _PHONE_GROUP.match(text, end)) is not None:
        if len(normal_phone(text[begin : group.end()])) > _LONGEST_PHONE:
            break
        end = group.end()
    return end


def _take(draft: _Draft, part: _Part) -> str | None:
    """Add a part to a draft, or say why not."""
    if part.is_open:
        return "The quote is not closed."
    if not is_storable(part.value) or not is_storable(part.key or ""):
        return "It has a character that no text can hold, U+0000 or half of a pair."
    if part.key is None:
        if part.value:
            draft.add("search", part.value)
        return None
    return _take_filter(draft, part, part.key)


def _take_filter(draft: _Draft, part: _Part, key: str) -> str | None:
    name, path = key.lower(), _path(key)
    if not part.value and not (part.is_quoted and (path or name == "raised")):
        return f"`{key}:` lacks a value."
    if name in _READERS:
        return _READERS[name](draft, name, part.value)
    if path is not None:
        draft.add("fields", (path, part.value))
        return None
    if _LOOKS_LIKE_A_FILTER.fullmatch(name) and not part.value.startswith("//"):
        return _unknown(name)
    draft.add("search", f"{key}:{part.value}")
    return None


def _unknown(name: str) -> str:
    similar = difflib.get_close_matches(name, FILTERS, n=1)
    if similar:
        return f"`{name}` is no filter; did you mean `{similar[0]}`?"
    return (
        f"`{name}` is no filter: they are {', '.join(FILTERS)}, and paths such as `data.{name}`."
        " A text with a colon is quoted."
    )


def _path(key: str) -> str | None:
    """Return the path into the body that a key stands for. Event types have dots too, so a path
    begins with a dot or with `data.`."""
    if key.startswith("."):
        return key[1:] or None
    return key if key.startswith("data.") else None


def _read_many(draft: _Draft, name: str, value: str) -> str | None:
    draft.add(f"{name}s", value)
    return None


def _read_once(draft: _Draft, name: str, value: Any) -> str | None:
    if draft.conditions.setdefault(_ONCE.get(name, name), value) != value:
        return f"`{name}:` is given twice: the first counts."
    return None


def _read_state(draft: _Draft, name: str, value: str) -> str | None:
    if value not in EVENT_STATES:
        return f"`{value}` is no state: they are {', '.join(EVENT_STATES)}."
    return _read_once(draft, name, value)


def _read_time(draft: _Draft, name: str, value: str) -> str | None:
    moment = parse_moment(value, now=draft.now)
    if moment is None:
        return f"`{value}` is no time: give {TIME_FORMS}."
    return _read_once(draft, name, moment)


def _read_number(draft: _Draft, name: str, value: str) -> str | None:
    number = value.removeprefix("#")
    if not related.is_bigint(number):
        return f"`{value}` is no number of a bulk action."
    return _read_once(draft, name, int(number))


def _read_id(draft: _Draft, _name: str, value: str) -> str | None:
    if _UUID.fullmatch(value):
        draft.add("ids", UUID(value))
    else:
        draft.add("event_ids", value)
    return None


def _read_number_or_name(draft: _Draft, name: str, value: str) -> str | None:
    draft.add("about", (name, str(int(value)) if related.is_bigint(value) else value))
    return None


def _read_phone(draft: _Draft, name: str, value: str) -> str | None:
    phone = normal_phone(value)
    if not phone:
        return f"`{value}` is no phone number: give its digits, 966500000000."
    draft.add("about", (name, phone))
    return None


def _read_message(draft: _Draft, name: str, value: str) -> str | None:
    draft.add("about", (name, value))
    return None


def _spell_time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _spell_number(number: int | None) -> str | None:
    return None if number is None else str(number)


def _spell_path(path: str) -> str:
    return path if path.startswith("data.") else f".{path}"


def _spell_value(name: str, value: str) -> str:
    # What follows could be read as more of a short number.
    if name == "phone" and len(value) <= _SHORT_OF_A_PHONE:
        return _in_quotes(value)
    return _quoted(value)


def _quoted(value: str, *, colons: bool = True) -> str:
    if _PLAIN.fullmatch(value) and (colons or ":" not in value):
        return value
    return _in_quotes(value)


def _in_quotes(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


_TOO_MANY = f"Only the first {MOST_PARTS} parts count."
# Filters with one value, by the name of what they set.
_ONCE = {
    "state": "state",
    "processor": "processor",
    "source": "source",
    "key": "key_id",
    "error": "error_type",
    "raised": "raised_at",
}
_NUMBERED = ("replay", "taken_back")
_READERS: dict[str, Callable[[_Draft, str, str], str | None]] = {
    "type": _read_many,
    "state": _read_state,
    "processor": _read_once,
    "source": _read_once,
    "key": _read_once,
    "error": _read_once,
    "raised": _read_once,
    "since": _read_time,
    "until": _read_time,
    **dict.fromkeys(related.NUMBERED, _read_number_or_name),
    "phone": _read_phone,
    "message": _read_message,
    "replay": _read_number,
    "taken_back": _read_number,
    "id": _read_id,
}
# A quote begins a text, or a value after a colon; it ends the part. Possessive, so that a text is
# read once, whatever it is.
_PART = re.compile(
    r"""
    (?: (?P<key> [^\s":]++ ) : )?+
    (?: " (?P<quoted> (?: [^"\\] | \\. )*+ \\?+ ) (?P<closed> "?+ ) | (?P<plain> [^\s"] \S*+ | ) )
    """,
    re.DOTALL | re.VERBOSE,
)
# Of a number of no more digits there must be further groups; E.164 ends at fifteen.
_SHORT_OF_A_PHONE = 6
_LONGEST_PHONE = 15
_PHONE_GROUP = re.compile(
    r"[^\S\n]+[^\w\s\":]*\d[\d()\-.\u200b-\u200f\u202a-\u202e\u2066-\u2069]*(?!\S)"
)
_ESCAPED = re.compile(r'\\(["\\])')
_LOOKS_LIKE_A_FILTER = re.compile(r"[a-z_]{1,40}")
_PLAIN = re.compile(r'[^\s"]\S*')
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
