"""Templates, such as `v0:{header:x-time}:{body}`: which parts are signed, or name an event."""

import re
from dataclasses import dataclass

_PART = re.compile(r"\{([a-z]+)(?::([^{}]+))?\}")
_BARE = frozenset({"body", "url", "content"})
_NAMED = frozenset({"header", "field", "path", "key"})


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a template."""

    kind: str
    """`literal`, `body`, `url`, `content`, `header`, `field`, `path` or `key`."""
    names: tuple[str, ...] = ()
    """What is looked up; the first that is there counts. Of a literal: its text."""


def parse(template: str) -> tuple[Part, ...]:
    """Return the parts of a template.

    Raises:
        ValueError: it is malformed. The message is a clause about "the template".
    """
    parts: list[Part] = []
    position = 0
    for match in _PART.finditer(template):
        parts += _literal(template[position : match.start()])
        kind, names = match.groups()
        if (names is None and kind in _BARE) or (names is not None and kind in _NAMED):
            parts.append(Part(kind, tuple(names.split("|")) if names else ()))
        else:
            raise ValueError(f"the template has an unknown part: {match.group()}")
        position = match.end()
    parts += _literal(template[position:])
    if not parts:
        raise ValueError("the template is empty")
    return tuple(parts)


def _literal(text: str) -> list[Part]:
    if "{" in text or "}" in text:
        raise ValueError("the template has a brace without its other")
    return [Part("literal", (text,))] if text else []
