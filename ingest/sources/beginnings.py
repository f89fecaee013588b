"""Titles of stored bodies, of which only the beginning may have been read."""

import re
from collections.abc import Mapping

from ingest import strict_json
from ingest.sources.base import Source
from ingest.sources.titles import Title

_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_STRINGS = re.compile(_STRING, re.DOTALL)
_WELL_FORMED = re.compile(rb'(?:[^"]++|' + _STRING + rb")*+", re.DOTALL)
"""Ends before a string that does not."""
_NOT_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
_CLOSING = bytes.maketrans(b"{[", b"}]")
_MOST_CUTS = 50
"""Each goes back by one string that holds a comma or a bracket."""


def title_of(
    sources: Mapping[str, Source], slug: str, event_type: str, body: bytes, *, is_whole: bool = True
) -> Title | None:
    """Return the title of an event by its body; None: the body, or its source, gives none.

    Args:
        sources: by slug.
        slug: the event's source.
        event_type: as it is stored.
        body: what of it was read.
        is_whole: whether that is all of it.
    """
    source = sources.get(slug)
    if source is None:
        return None
    try:
        envelope = source.parse(body if is_whole else completed(body))
        return source.title_event(envelope._replace(type=event_type))
    except Exception:  # a plugin's code meets bodies of any shape, and a list goes on without it
        return None


def completed(beginning: bytes) -> bytes:
    """Return a body that ends with the last whole member of the beginning of a longer one.

    A body that has none, or that is no JSON and no form, becomes one that cannot be parsed.
    """
    if beginning.lstrip()[:1] not in (b"{", b"["):  # a form
        return beginning.rpartition(b"&")[0]
    end = _end_of_strings(beginning, len(beginning))
    for _ in range(_MOST_CUTS):
        cut = max(beginning.rfind(b",", 0, end), _behind_opening(beginning, end))
        end = _end_of_strings(beginning, cut)
        if end == cut:
            return beginning[:cut] + _closing(beginning[:cut])
    return b""


def _behind_opening(body: bytes, end: int) -> int:
    return max(body.rfind(b"{", 0, end), body.rfind(b"[", 0, end)) + 1


def _end_of_strings(body: bytes, end: int) -> int:
    """Return where the first string begins that is not over before `end`; none: `end`."""
    match = _WELL_FORMED.match(body, 0, end)
    return 0 if match is None else match.end()


def _closing(body: bytes) -> bytes:
    """Return the brackets that close those which are open."""
    opened = _STRINGS.sub(b"", body).translate(None, _NOT_BRACKETS)
    for _ in range(strict_json.MAX_DEPTH):  # each round removes the innermost level
        opened = opened.replace(b"{}", b"").replace(b"[]", b"")
    return opened.translate(_CLOSING)[::-1]
