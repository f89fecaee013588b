"""What processors the modules declare, as a process of its own tells it: this package never imports
theirs, and what a user's module does must not reach the process that asks."""

import json
import sys
from dataclasses import dataclass

from ingest.errors import IngestError

COMMAND = (sys.executable, "-m", "workers", "processors")
"""Imports the modules as `ingest worker` does, prints what they declare, and ends."""


class NotImported(IngestError):
    """A module with processors cannot be imported; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredProcessor:
    """A processor, and the event types, or patterns of them, that it is for."""

    name: str
    types: tuple[str, ...]


def read(code: int, output: str, errors: str) -> list[DeclaredProcessor]:
    """Return what the command told.

    Args:
        code: its exit code.
        output: its standard output; what a module prints comes before.
        errors: its standard error.

    Raises:
        NotImported: it could not import them.
    """
    last = (errors if code else output).splitlines()[-1:]
    if code or not last:
        sentence = last[0].removeprefix("ingest: ") if last else "The processors end the process."
        raise NotImported(sentence, reason="processors_not_imported")
    return [
        DeclaredProcessor(name=declared["name"], types=tuple(declared["types"]))
        for declared in json.loads(last[0])
    ]
