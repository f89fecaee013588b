"""What the bodies of some events have in common that those of others have not. Pure."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from ingest.store.search.opened_bodies import text_of

MOST_LEAVES = 300
"""Values of a body that are looked at."""
LONGEST_VALUE = 100
"""Characters of a value that is compared; a longer one is a text of somebody's."""
LEAST = 3
"""Of fewer events nothing can be said."""
_LEAST_SHARE = 0.8
_LEAST_DIFFERENCE = 0.3
_SHOWN = 8
_ABSENT, _OBJECT = object(), object()

Leaf = tuple[str, object]
"""A path of the body and a value that stands there; or that an object does, or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonField:
    """A value, or the lack of one, that most of the events that fail so have."""

    path: str
    """As in a search: `data.shipping_country`. `[]` stands for any place of a list."""
    value: str | None
    """None: most of them have nothing there."""
    events: int
    """How many of the failing events that were looked at have it."""
    examined: int
    """How many were looked at."""
    others_share: float
    """The share of other events of the same types that have it, 0 to 1."""


def common(failing: Sequence[Any], others: Sequence[Any]) -> tuple[CommonField, ...]:
    """Return what the bodies of failing events have in common, the most telling first.

    It has to be in four of five, and in far fewer of the others.

    Args:
        failing: their bodies, as JSON was read.
        others: bodies of events of the same types that do not fail so.
    """
    if len(failing) < LEAST or not others:
        return ()
    ours, theirs = [set(leaves(body)) for body in failing], [set(leaves(body)) for body in others]
    paths = {path for body in (*ours, *theirs) for path, _ in body}
    counted, among_others = _counted(ours, paths), _counted(theirs, paths)
    telling = {
        leaf: count
        for leaf, count in counted.items()
        if leaf[1] is not _OBJECT and _tells(count / len(ours), among_others[leaf] / len(theirs))
    }
    fields = [
        _field(leaf, count, among_others[leaf], examined=len(ours), of_others=len(theirs))
        for leaf, count in telling.items()
        if leaf[1] is not _ABSENT or (_parent(leaf[0]), _ABSENT) not in telling
    ]
    return tuple(sorted(fields, key=_least_telling_last)[:_SHOWN])


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _least_telling_last(field: CommonField) -> tuple[float, bool, str]:
    share = field.events / field.examined
    return field.others_share - share, field.value is None, field.path


def leaves(value: Any, path: str = "") -> Iterator[Leaf]:
    """Yield the first `MOST_LEAVES` values and objects of a body, each with its path."""
    waiting = [(path, value)]
    left = MOST_LEAVES
    while waiting and left:
        path, value = waiting.pop()
        if isinstance(value, Mapping):
            if path:
                left -= 1
                yield path, _OBJECT
            prefix = f"{path}." if path else ""
            waiting += [(f"{prefix}{name}", value[name]) for name in reversed(value)]
        elif isinstance(value, list):
            waiting += [(f"{path}[]", item) for item in reversed(value)]
        else:
            spelled = text_of(value)
            if spelled is not None and len(spelled) <= LONGEST_VALUE:
                left -= 1
                yield path, spelled


def _counted(bodies: Sequence[Collection[Leaf]], paths: Set[str]) -> Counter[Leaf]:
    """Count in how many bodies each value stands, and in how many nothing does at a path."""
    counts: Counter[Leaf] = Counter()
    for body in bodies:
        counts.update(body)
        present = {path for path, _ in body}
        counts.update((path, _ABSENT) for path in paths - present)
    return counts


def _tells(share: float, others_share: float) -> bool:
    return share >= _LEAST_SHARE and share - others_share >= _LEAST_DIFFERENCE


def _field(
    leaf: Leaf, count: int, among_others: int, *, examined: int, of_others: int
) -> CommonField:
    path, value = leaf
    return CommonField(
        path=path,
        value=None if value is _ABSENT else str(value),
        events=count,
        examined=examined,
        others_share=among_others / of_others,
    )
