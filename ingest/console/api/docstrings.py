"""What classes say of their fields: the docstring below each, which Python itself forgets."""

import ast
import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise

_MODULES = re.compile(r" \((?:as )?ingest\.[\w.]+\)")


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
        tree = ast.parse(inspect.getsource(sys.modules[name]))
    except OSError:
        return {}
    return {
        node.name: dict(_said(node.body))
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }


def _said(body: Sequence[ast.stmt]) -> Iterator[tuple[str, str]]:
    for field, below in pairwise(body):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, plain(text)
