"""Models of events' data, written as Python from what the data of many events looked like.

What a sender names may be anything, so names reach the text only as identifiers, as literals of
Python, or cleaned.
"""

import keyword
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

_FIELD = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_KEY_OF_A_FIELD = re.compile(r"[A-Za-z_@$][\w.:@$ -]{0,80}", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9]+")
_UNSAFE = re.compile(r"[^\w.:/ *-]", re.ASCII)
_ANNOTATING = frozenset(
    {"list", "dict", "str", "int", "bool", "Any", "Decimal", "Annotated", "Field"}
)
"""Names that annotations use. In the body of a class a field of such a name would hide it."""
_MOST_FIELDS = 200
"""An object with more, in all events together, is a mapping and no record."""
_HEAD = '''\
"""What the data of events is. Written by `ingest types`; edit it as you like."""

'''


@dataclass(slots=True)
class Shape:
    """What the values of one place looked like."""

    seen: int = 0
    """How many values there were, null among them."""
    scalars: set[str] = field(default_factory=set)
    """Their types, as Python writes them; objects and lists apart."""
    objects: int = 0
    fields: dict[str, "Shape"] = field(default_factory=dict)
    items: "Shape | None" = None
    """Of lists: what is in them."""

    def add(self, value: object) -> None:
        """Take one more value into account."""
        self.seen += 1
        if isinstance(value, Mapping):
            self.objects += 1
            for name, member in value.items():
                self.fields.setdefault(name, Shape()).add(member)
        elif isinstance(value, list):
            self.items = self.items or Shape()
            for member in value:
                self.items.add(member)
        else:
            self.scalars.add(_scalar(value))

    @property
    def is_record(self) -> bool:
        """Return whether its objects have named fields, rather than keys that are data."""
        return 0 < len(self.fields) <= _MOST_FIELDS and all(
            _KEY_OF_A_FIELD.fullmatch(name) for name in self.fields
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The events of one type of one source."""

    source: str
    type: str
    events: int
    shape: Shape


def observe(events: Iterable[tuple[str, str, Mapping[str, Any]]]) -> list[Observed]:
    """Return what the data of events looked like, by source and type.

    Args:
        events: of each its source, its type and its data.
    """
    shapes: dict[tuple[str, str], Shape] = {}
    for source, event_type, data in events:
        shapes.setdefault((source, event_type), Shape()).add(data)
    return [
        Observed(source=source, type=event_type, events=shape.seen, shape=shape)
        for (source, event_type), shape in sorted(shapes.items())
    ]


def module(observed: Iterable[Observed]) -> str:
    """Return a Python module with a dataclass for each type."""
    writer = _Writer()
    for kind in observed:
        writer.write_type(kind)
    return writer.text()


class _Writer:
    def __init__(self) -> None:
        self._classes: list[str] = []
        self._names = {*_ANNOTATING, "None", "True", "False"}
        self._imports: set[str] = set()

    def write_type(self, kind: Observed) -> None:
        """Write the class of an event type, after those of its objects."""
        events = f"{kind.events:,} {'event' if kind.events == 1 else 'events'}"
        named = _UNSAFE.sub("?", f"{kind.type} of {kind.source}")
        name = self._free(_title(kind.type) or "Data", _title(kind.source))
        self._write_class(name, kind.shape, f"{named}, as in {events}.")

    def text(self) -> str:
        """Return the module."""
        standard = ["from dataclasses import dataclass"]
        if "Decimal" in self._imports:
            standard.append("from decimal import Decimal")
        typing = sorted(self._imports & {"Annotated", "Any"})
        if typing:
            standard.append(f"from typing import {', '.join(typing)}")
        pydantic = "\nfrom pydantic import Field\n" if "Annotated" in self._imports else ""
        imports = "\n".join(standard) + "\n" + pydantic
        return _HEAD + imports + "".join(f"\n\n{text}" for text in self._classes)

    def _write_class(self, name: str, shape: Shape, said: str | None = None) -> None:
        lines = ["@dataclass(frozen=True, kw_only=True)", f"class {name}:"]
        if said:
            lines += [f'    """{said}"""', ""]
        lines += [f"    {line}" for line in self._fields(name, shape)] or ["    pass"]
        self._classes.append("\n".join(lines) + "\n")

    def _fields(self, owner: str, shape: Shape) -> Iterator[str]:
        taken: set[str] = set()
        for key, member in shape.fields.items():
            spelled = self._type(member, f"{owner}{_title(key)}")
            is_optional = member.seen < shape.objects
            if is_optional and "None" not in spelled.split(" | "):
                spelled += " | None"
            name = _field_name(key, taken)
            if name != key:
                self._imports.add("Annotated")
                spelled = f"Annotated[{spelled}, Field(alias={key!a})]"
            yield f"{name}: {spelled}" + (" = None" if is_optional else "")

    def _type(self, shape: Shape, name: str) -> str:
        """Return the type of a place as Python writes it; `name` is for its objects' class."""
        kinds = sorted(shape.scalars - {"None"})
        if "Decimal" in kinds and "int" in kinds:
            kinds.remove("int")
        if shape.items is not None:
            kinds.append(
                f"list[{self._type(shape.items, name)}]"
                if shape.items.seen
                else self._any("list[Any]")
            )
        if shape.objects:
            kinds.append(self._object(shape, name))
        if "None" in shape.scalars:
            kinds.append("None")
        self._imports |= {"Decimal"} & set(kinds)
        return " | ".join(kinds) if kinds != ["None"] else self._any("Any")

    def _object(self, shape: Shape, name: str) -> str:
        if not shape.is_record:
            return self._any("dict[str, Any]")
        own = self._free(name)
        self._write_class(own, shape)
        return own

    def _any(self, spelled: str) -> str:
        self._imports.add("Any")
        return spelled

    def _free(self, name: str, prefix: str = "") -> str:
        """Return a name that no class has yet."""
        candidates = [name, f"{prefix}{name}", *(f"{name}{number}" for number in range(2, 10_000))]
        own = next(candidate for candidate in candidates if candidate not in self._names)
        self._names.add(own)
        return own


def _scalar(value: object) -> str:
    if value is None:
        return "None"
    for kind in (bool, int, Decimal, str):
        if isinstance(value, kind):
            return kind.__name__
    raise TypeError(f"no value of JSON: {type(value).__name__}")


def _title(text: str) -> str:
    """Return the name of a class: `order.created` is `OrderCreated`."""
    words = "".join(word[:1].upper() + word[1:] for word in _WORD.findall(text))
    return f"Type{words}" if words[:1].isdigit() else words


def _is_taken(name: str) -> bool:
    return keyword.iskeyword(name) or name in _ANNOTATING


def _field_name(key: str, taken: set[str]) -> str:
    """Return the name of a field. It is the key, where the key can name one."""
    name = key
    if not _FIELD.fullmatch(key) or _is_taken(key):
        words = "_".join(_WORD.findall(key)) or "field"
        name = f"{words}_" if _is_taken(words) else words
        name = f"field_{name}" if name[:1].isdigit() else name
    while name in taken:
        name += "_"
    taken.add(name)
    return name
