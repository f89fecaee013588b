"""Templates, such as `v0:{header:x-time}:{body}`: which parts are signed, or name an event."""

import re
from dataclasses import dataclass

_PART = re.compile(r"\{([a-z]+)(?::([^{}]+))?\}")
_BARE = frozenset({"body", "url", "content"})
_NAMED = frozenset({"header", "field", "path", "key"})
_BARE_IN_TITLES = frozenset({"words", "verb"})
_NAMED_IN_TITLES = frozenset({"path", "shown", "phone", "amount", "cents"})


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a template."""

    kind: str
    """`literal`, `body`, `url`, `content`, `header`, `field`, `path` or `key`; in titles `literal`,
    `words`, `verb`, `path`, `shown`, `phone`, `amount` or `cents`."""
    names: tuple[str, ...] = ()
    """What is looked up; the first that is there counts. Of a literal: its text."""


def parse(template: str) -> tuple[Part, ...]:
    """Return the parts of a template of what is signed, or of a name.

    Raises:
        ValueError: it is malformed. The message is a clause about "the template".
    """
    return _parse(template, _BARE, _NAMED)


def parse_title(template: str) -> tuple[Part, ...]:
    """Return the parts of a template of an event's title.

    Raises:
        ValueError: it is malformed. The message is a clause about "the template".
    """
    parts = _parse(template, _BARE_IN_TITLES, _NAMED_IN_TITLES)
    for part in parts:
        is_money = part.kind in ("amount", "cents")
        if is_money and (len(part.names) != 1 or part.names[0].count(",") != 1):
            raise ValueError(f"{{{part.kind}:…}} takes two paths, {{{part.kind}:a.b,a.currency}}")
    return parts


def _parse(template: str, bare: frozenset[str], named: frozenset[str]) -> tuple[Part, ...]:
    parts: list[Part] = []
    position = 0
    for match in _PART.finditer(template):
        parts += _literal(template[position : match.start()])
        kind, names = match.groups()
        if (names is None and kind in bare) or (names is not None and kind in named):
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
