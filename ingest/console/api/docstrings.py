"""What classes say of their fields: the docstring below each, which Python itself forgets."""

import ast
import inspect
import re
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise

_MODULES = re.compile(r" \((?:as )?ingest\.[\w.]+\)")
_PARSING = threading.Lock()
_MOST_TRIES = 100


def of_fields(cls: type) -> Mapping[str, str]:
    """Return what a class and its bases say of their fields, by name, as plain sentences."""
    said: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        said |= _of_module(base.__module__).get(base.__qualname__.partition("[")[0], {})
    return said


def plain(text: str) -> str:
    """Return a docstring on one line, in the words of JSON, without the names of our modules."""
    line = _MODULES.sub("", " ".join(text.split()))
    return re.sub(r"\bNone\b", "null", line)


@cache
def _of_module(name: str) -> Mapping[str, Mapping[str, str]]:
    """Return what the source of a module says, by class and field; empty: there is no source."""
    if not name.startswith("ingest."):
        return {}
    try:
        tree = _parsed(inspect.getsource(sys.modules[name]))
    except OSError:
        return {}
    return {
        node.name: dict(_said(node.body))
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }


def _parsed(source: str) -> ast.Module:
    """Return the tree of a source.

    Python 3.11 has one count for all threads of how deep it is in a tree, and raises SystemError
    where two threads make trees at a time (python/cpython#106905). Whoever formats a traceback does
    so too, so a lock of ours is not enough.
    """
    with _PARSING:
        for _ in range(_MOST_TRIES - 1):
            try:
                return ast.parse(source)
            except SystemError:
                continue
        return ast.parse(source)


def _said(body: Sequence[ast.stmt]) -> Iterator[tuple[str, str]]:
    for field, below in pairwise(body):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, plain(text)
