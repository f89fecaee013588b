"""The key of an event: by what jobs are kept in order, or limited."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from typing import Any
from uuid import UUID

from ingest.ordered_by import MOST_FIELDS, is_field
from workers.event import Event

KeyFunction = Callable[[Event], object]
KeyedBy = str | Sequence[str] | KeyFunction
"""A field of an event's data, several, or a function of the event."""


class UnreadableKey(Exception):
    """The key of an event cannot be told: its job is a dead letter at once, and holds up none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventKey:
    """What a key is read from."""

    option: str
    """What declares it: `ordered_by` or `limit_by`."""
    described: str
    """The fields or the function, for people."""
    fields: tuple[tuple[str, ...], ...]
    """Their paths in the data; empty with a function."""
    function: KeyFunction | None

    def of(self, event: Event) -> tuple[str, ...] | None:
        """Return the key of `event`; None: it has none.

        Raises:
            UnreadableKey: what is to be the key is an object or a list.
            Exception: what the processor's own function raises.
        """
        if self.function is None:
            values = [_value(event.data, path) for path in self.fields]
        else:
            returned = self.function(event)
            values = list(returned) if isinstance(returned, tuple) else [returned]
        if any(value is None for value in values):
            return None
        return tuple(self._spelled(value) for value in values)

    def digest(self, processor: str, key: Sequence[str]) -> UUID:
        """Return what stands for the key of a processor. Another declaration gives another."""
        spelled = json.dumps([processor, self.described, *key]).encode()
        return UUID(bytes=sha256(spelled).digest()[:16])

    def _spelled(self, value: object) -> str:
        """Return a value as one text, however the sender spells it: 5 and "5" are one key."""
        if not isinstance(value, str | int | float | Decimal | UUID):
            raise UnreadableKey(
                f"{self.option} {self.described}: a key is text or a number, not a"
                f" {type(value).__name__}"
            )
        return str(value)


def key_of(keyed_by: KeyedBy, *, option: str) -> EventKey:
    """Return the key that a declaration names by `option`.

    Raises:
        TypeError, ValueError: it makes no sense.
    """
    if callable(keyed_by):
        name = getattr(keyed_by, "__qualname__", type(keyed_by).__qualname__)
        module = getattr(keyed_by, "__module__", None)
        described = f"{module}.{name}()" if module else f"{name}()"
        return EventKey(option=option, described=described, fields=(), function=keyed_by)
    names = (keyed_by,) if isinstance(keyed_by, str) else tuple(keyed_by)
    if not 0 < len(names) <= MOST_FIELDS or not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"{option} is a field (order_id), up to {MOST_FIELDS} of them, or a function"
        )
    for name in names:
        if not is_field(name):
            raise ValueError(f"{name!r} is no field: name one (order_id, order.id)")
    return EventKey(
        option=option,
        described=", ".join(names),
        fields=tuple(tuple(name.split(".")) for name in names),
        function=None,
    )


def _value(data: Any, path: Sequence[str]) -> object:
    for name in path:
        if not isinstance(data, dict):
            return None
        data = data.get(name)
    return data
