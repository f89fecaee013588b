"""What somebody meant who named a processor or a type that there is not."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from sqlalchemy import Connection

from ingest.cli.database import CommandError
from ingest.cli.output import printable
from ingest.sources import registry
from ingest.store.pipeline import processors
from ingest.store.search import known

_LISTED = 10
_CLOSE = 3
_VERY_CLOSE = 0.85
"""A letter of ten is wrong."""


def check_processor(connection: Connection, name: str | None) -> None:
    """Raise CommandError if no worker has ever registered a processor of this name."""
    names = sorted(processors.types(connection))
    if name is not None and name not in names:
        raise CommandError(missing("processor", name, names), reason="unknown_processor")


def check_types(connection: Connection, patterns: Iterable[str]) -> None:
    """Raise CommandError for a type that nothing has: no event, no processor, no sender's sample. A
    pattern with stars may match nothing; it is refused if it resembles one that matches."""
    wanted = tuple(patterns)
    if not wanted:
        return
    of_processors = (name for names in processors.types(connection).values() for name in names)
    of_samples = (name for source in registry.classes().values() for name in source.samples.types)
    stored = known.types(connection)
    names = sorted({*stored, *of_processors, *of_samples})
    for pattern in wanted:
        literal = pattern.replace("[", "[[]").replace("?", "[?]")
        if not any(fnmatchcase(name, literal) for name in names):
            families = {f"{name.partition('.')[0]}.*" for name in names if "." in name}
            candidates = sorted(families) if "*" in pattern else names
            if "*" in pattern and close_to(pattern, candidates) is None:
                continue
            told = missing("type", pattern, candidates, others=stored or names)
            raise CommandError(told, reason="unknown_type")


def close_to(name: str, names: Sequence[str]) -> str | None:
    """Return the name that comes very close, or those that come close, as `a, b or c`; None: none
    does."""
    matches = get_close_matches(name, names, n=1, cutoff=_VERY_CLOSE)
    close = [printable(match) for match in matches or get_close_matches(name, names, n=_CLOSE)]
    if not close:
        return None
    *first, last = close
    return f"{', '.join(first)} or {last}" if first else last


def missing(
    noun: str, name: str, names: Sequence[str], *, others: Sequence[str] | None = None
) -> str:
    """Return the sentence that there is no such thing, and what comes close, or which there are."""
    close = close_to(name, names)
    if close is not None:
        return f"There is no {noun} {printable(name)}: did you mean {close}?"
    listed = names if others is None else others
    if not listed:
        return f"There is no {noun} {printable(name)}, nor any other."
    more = len(listed) - _LISTED
    shown = ", ".join(map(printable, listed[:_LISTED]))
    rest = f" and {more:,} more" if more > 0 else ""
    return f"There is no {noun} {printable(name)}; there is {shown}{rest}."
