"""Titles of stored bodies, of which only the beginning may have been read."""

import re
from collections.abc import Mapping

from ingest import strict_json
from ingest.sources.base import Source
from ingest.sources.titles import Title

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?+|[{}\[\],]', re.DOTALL)
_CLOSING = {b"{": b"}", b"[": b"]"}


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
    """Return a body that ends with the last whole member of the beginning of a longer one."""
    if beginning.lstrip()[:1] not in (b"{", b"["):  # a form
        return beginning.rpartition(b"&")[0]
    closing: list[bytes] = []
    end = 0
    for match in _TOKEN.finditer(beginning):
        token = match[0]
        if token in _CLOSING:
            closing.append(_CLOSING[token])
            end = match.end()
        elif token == b",":
            end = match.start()
        elif token in (b"}", b"]"):
            if not closing:
                break
            closing.pop()
            end = match.end()
        if len(closing) > strict_json.MAX_DEPTH:
            break
    return beginning[:end] + b"".join(reversed(closing))
