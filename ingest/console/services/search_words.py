"""What the search field completes, for pages and API."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from ingest.console.ui import masking
from ingest.query import FILTERS
from ingest.store.search.filters import EVENT_STATES, MARKS
from ingest.store.search.words import words

_SINCE = ("15m", "2h", "7d", "today", "yesterday")
_UNTIL = ("today", "yesterday")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchWords:
    """What can be typed into a search."""

    filters: Mapping[str, str]
    """What each filter means."""
    values: Mapping[str, Sequence[str]]
    """The values that there are, for those filters that have a list of them."""


def read(connection: Connection, *, masked: bool) -> SearchWords:
    """Return the filters, and the values that there are; masked ones name no number."""
    known = words(connection)
    values: dict[str, Sequence[str]] = {
        "type": known.types,
        "source": known.sources,
        "processor": known.processors,
        "error": known.errors,
        "state": EVENT_STATES,
        "is": tuple(MARKS),
        "since": _SINCE,
        "until": _UNTIL,
    }
    if masked:
        values = {name: masking.unhidden(texts) for name, texts in values.items()}
    return SearchWords(filters=FILTERS, values=values)
