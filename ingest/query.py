"""What an operator types to say which events are meant: `state:dead -type:order.* "a text"`.

A part is a filter and its value, or a text to search for; with `-` before it, it excludes. Values
and texts with white space are quoted; in quotes `\\"` and `\\\\` stand for `"` and `\\`. Several
types are alternatives, and so are several ids; everything else must all hold. What is not
understood is told and ignored: where events are changed, a query with problems must not be acted
upon.
"""

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from ingest.phones import normal_phone
from ingest.query_parts import Part, in_quotes, is_of_a_short_phone, parts, quoted
from ingest.store.search import related
from ingest.store.search.comparisons import COMPARE, is_number
from ingest.store.search.filters import EVENT_STATES, MARKS, EventFilter
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
    "delivery": "the events of the delivery of this id",
    "deliveries": "how often it was delivered: 2, >1, >=3",
    "is": "`duplicate`: delivered more than once; `conflict`: a delivery has another content",
}
"""What each filter asks for. Besides, a path into the body: `data.order_id:55`, `.event:…`,
`data.total:>1000`."""


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
    for number, part in enumerate(parts(text)):
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
    times = {"since": selection.since, "until": selection.until}
    filters += [(name, None if at is None else spell_time(at)) for name, at in times.items()]
    filters += [(name, _spell_number(getattr(selection, name))) for name in _NUMBERED]
    filters += selection.about
    filters += [("is", mark) for mark in selection.marks]
    spelled = [
        f"{name}:{_spell_value(name, value)}" for name, value in filters if value is not None
    ]
    spelled += [
        f"deliveries:{_SPELLED_SIGNS.get(sign, sign)}{number}"
        for sign, number in selection.deliveries
    ]
    spelled += [f"{_spell_path(path)}:{_spell_field(value)}" for path, value in selection.fields]
    spelled += [f"{_spell_path(path)}:{sign}{value}" for path, sign, value in selection.comparisons]
    spelled += [quoted(searched, as_text=True) for searched in selection.texts]
    return " ".join([*spelled, *(f"-{spell(alone)}" for alone in selection.excluded)])


def describe(selection: EventFilter) -> str:
    """Return a selection as the audit log shows it."""
    if not selection.ids:
        return spell(selection) or "everything"
    names = [str(event) for event in selection.ids[:3]]
    more = len(selection.ids) - len(names)
    rest = f" and {more} more" if more else ""
    processor = f" for {selection.processor}" if selection.processor else ""
    return ", ".join(names) + rest + processor


@dataclass(slots=True, kw_only=True)
class _Draft:
    """A selection in the making."""

    now: datetime
    conditions: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, value: object) -> None:
        self.conditions[name] = tuple(dict.fromkeys((*self.conditions.get(name, ()), value)))

    def selection(self) -> EventFilter:
        return EventFilter(**self.conditions)


def _take(draft: _Draft, part: Part) -> str | None:
    """Add a part to a draft, or say why not."""
    if not part.is_negated:
        return _take_alone(draft, part)
    name = (part.key or "").lower()
    if name in _NEVER_NEGATED:
        return f"`{name}:` cannot be negated{_NEVER_NEGATED[name]}."
    alone = _Draft(now=draft.now)
    complaint = _take_alone(alone, part)
    if alone.conditions:
        draft.add("excluded", alone.selection())
    return complaint


def _take_alone(draft: _Draft, part: Part) -> str | None:
    if part.is_open:
        return "The quote is not closed."
    if not is_storable(part.value) or not is_storable(part.key or ""):
        return "It has a character that no text can hold, U+0000 or half of a pair."
    if part.key is None:
        if part.value:
            draft.add("search", part.value)
        return None
    return _take_filter(draft, part, part.key)


def _take_filter(draft: _Draft, part: Part, key: str) -> str | None:
    name, path = key.lower(), _path(key)
    if not part.value and not (part.is_quoted and (path or name == "raised")):
        return f"`{key}:` lacks a value."
    if name in _READERS:
        return _READERS[name](draft, name, part.value)
    if path is not None:
        return _take_field(draft, path, part)
    if _LOOKS_LIKE_A_FILTER.fullmatch(name) and not part.value.startswith("//"):
        return _unknown(name)
    draft.add("search", f"{key}:{part.value}")
    return None


def _take_field(draft: _Draft, path: str, part: Part) -> str | None:
    sign = next(filter(part.value.startswith, COMPARE), None)
    if sign is None or part.is_quoted:
        draft.add("fields", (path, part.value))
        return None
    value = part.value.removeprefix(sign)
    if not is_number(value):
        moment = parse_moment(value, now=draft.now)
        if moment is None:
            return _INCOMPARABLE.format(value=value, forms=TIME_FORMS, sign=sign)
        value = spell_time(moment)
    draft.add("comparisons", (path, sign, value))
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


def _read_delivery(draft: _Draft, name: str, value: str) -> str | None:
    if not _UUID.fullmatch(value):
        return f"`{value}` is no id of a delivery, which is a UUID."
    return _read_id(draft, name, value)


def _read_deliveries(draft: _Draft, name: str, value: str) -> str | None:
    match = _NUMBER_OF_DELIVERIES.fullmatch(value)
    if match is None:
        return f"`{value}` is no number of deliveries: give 2, >1 or <=5."
    draft.add(name, (match["sign"] or "=", int(match["number"])))
    return None


def _read_mark(draft: _Draft, _name: str, value: str) -> str | None:
    if value not in MARKS:
        return f"No event is `{value}`: `is:` takes {' or '.join(MARKS)}."
    draft.add("marks", value)
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


def spell_time(moment: datetime) -> str:
    """Return a time as searches name it."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _spell_field(value: str) -> str:
    # Unquoted it would be a comparison.
    return in_quotes(value) if value.startswith(tuple(COMPARE)) else quoted(value)


def _spell_number(number: int | None) -> str | None:
    return None if number is None else str(number)


def _spell_path(path: str) -> str:
    return path if path.startswith("data.") else f".{path}"


def _spell_value(name: str, value: str) -> str:
    # What follows could be read as more of a short number.
    if name == "phone" and is_of_a_short_phone(value):
        return in_quotes(value)
    return quoted(value)


_INCOMPARABLE = (
    "`{value}` is neither a number nor a time: give {forms}. A text that begins with `{sign}` is"
    " quoted."
)
_SPELLED_SIGNS = {"=": ""}
_TOO_MANY = f"Only the first {MOST_PARTS} parts count."
# Filters that only select, with what would do instead.
_NEVER_NEGATED = {
    "since": ": give `until:`",
    "until": ": give `since:`",
    **dict.fromkeys(("id", "delivery", "replay", "taken_back", *related.KINDS), ""),
}
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
    "delivery": _read_delivery,
    "deliveries": _read_deliveries,
    "is": _read_mark,
}
_LOOKS_LIKE_A_FILTER = re.compile(r"[a-z_]{1,40}")
_NUMBER_OF_DELIVERIES = re.compile("(?P<sign>>=|<=|>|<|=)?(?P<number>[0-9]{1,9})")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
