"""Text that PostgreSQL can hold: what every string from outside passes before it meets a text
column."""

import re

# PostgreSQL's text refuses U+0000, and UTF-8 has no code for half a surrogate pair; JSON allows
# both.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def is_storable(text: str) -> bool:
    """Whether a text column takes `text` unchanged."""
    return _UNSTORABLE.search(text) is None


def storable(text: str, *, limit: int | None = None) -> str:
    """`text` with what PostgreSQL refuses replaced by U+FFFD, cut to `limit` characters with an
    ellipsis."""
    clean = _UNSTORABLE.sub(_REPLACEMENT, text)
    if limit is not None and len(clean) > limit:
        return clean[: limit - 1] + "…"
    return clean
