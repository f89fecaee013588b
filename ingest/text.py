"""Make text storable in PostgreSQL. Every string from outside passes here before a text column."""

import re

# PostgreSQL's text refuses U+0000, and UTF-8 has no code for half a surrogate pair; JSON allows
# both.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def is_storable(text: str) -> bool:
    """Return whether a text column can hold `text` unchanged."""
    return _UNSTORABLE.search(text) is None


def storable(text: str, *, limit: int | None = None) -> str:
    """Replace what PostgreSQL refuses by U+FFFD, and cut to `limit` characters with an ellipsis."""
    clean = _UNSTORABLE.sub(_REPLACEMENT, text)
    if limit is not None and len(clean) > limit:
        return clean[: limit - 1] + "…"
    return clean
