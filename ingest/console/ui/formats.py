"""The templates' filters for numbers, durations, times, ids and JSON."""

import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

from markupsafe import Markup, escape

from ingest.durations import in_words
from ingest.sources.titles import Title

NOTHING = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"

_TAIL = 14
"""Characters at the end of a long id that stay visible, since ids differ there."""


def number(value: float | None) -> str:
    """Format a number: `1,234`, and a fraction with its significant digits."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value == int(value) or abs(value) >= 100:
        return _signed(f"{round(value):,}")
    return _signed(f"{value:,.1f}" if abs(value) >= 1 else f"{value:.2g}")


def compact(value: float | None) -> str:
    """Format a number in little space: `950`, `12.3 k`, `1.2 M`."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if abs(value) < 999.5:
        return number(value)
    for limit, unit in ((1e3, "k"), (1e6, "M"), (1e9, "G")):
        if abs(value) < limit * 999.95:  # a larger value would round to 1,000
            return f"{_trimmed(value / limit)} {unit}"
    return f"{_trimmed(value / 1e12)} T"


def counted(value: float, kind: str = "exact") -> str:
    """Format a count with its accuracy: `1,234`, `about 1.2 M`, `at least 10,000`."""
    match kind:
        case "about":
            return f"about {compact(value)}"
        case "at least":
            return f"at least {number(value)}"
        case _:
            return number(value)


def bounded(value: float, is_least: bool) -> str:
    """Format a count that may be a lower bound: `1,234`, `at least 1,234`."""
    return counted(value, "at least" if is_least else "exact")


def plural(value: float, noun: str, many: str | None = None) -> str:
    """Format a number and its noun: `1 job`, `1,234 jobs`."""
    return f"{number(value)} {noun if value == 1 else many or noun + 's'}"


def duration(value: float | timedelta | None) -> str:
    """Format a duration (seconds) in one or two units: `12 ms`, `3 min 20 s`."""
    if value is None:
        return NOTHING
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if not math.isfinite(seconds):
        return NOTHING
    if seconds < 0:
        return f"{_MINUS}{duration(-seconds)}"
    if seconds < 0.0095:
        return f"{_trimmed(seconds * 1000)} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{_trimmed(seconds)} s"
    return in_words(seconds)


def size(value: float | None) -> str:
    """Format bytes: `512 B`, `1.2 KiB`, `3.4 MiB`."""
    if value is None:
        return NOTHING
    if value < 1024:
        return f"{value:.0f} B"
    for limit, unit in ((2**20, "KiB"), (2**30, "MiB")):
        if value < limit:
            return f"{_trimmed(value / (limit / 1024))} {unit}"
    return f"{_trimmed(value / 2**30)} GiB"


def iso(moment: datetime) -> str:
    """Format a time for programs: `2026-01-31T12:00:00.123Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def utc(moment: datetime) -> str:
    """Format a time for people whose browser runs no script to convert it to their zone."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdParts:
    """An event id in a list: its type, and the rest, whose middle is cut where there is no room."""

    type: str
    head: str
    tail: str


def type_name(event_type: str) -> str:
    """Return an event's type. Senders may leave it empty, and nobody would see that."""
    return event_type or "(empty type)"


def id_parts(event_id: str, type: str) -> IdParts:  # noqa: A002 - the design's word
    """Split an event id."""
    rest = event_id.removeprefix(f"{type}:")
    if len(rest) <= 2 * _TAIL:
        return IdParts(type=type, head=rest, tail="")
    cut = rest.rfind(":")
    if not 0 < len(rest) - cut <= _TAIL:
        cut = len(rest) - _TAIL // 2
    return IdParts(type=type, head=rest[:cut], tail=rest[cut:])


def title_html(title: Title | None) -> Markup:
    """Return an event's title. Values that read from right to left are isolated, so that they do
    not reorder what stands beside them, and so that a list can cut them at their own end."""
    pieces: list[Markup] = []
    parts = title.parts if title else ()
    for is_isolated, group in groupby((part.text for part in parts), key=_reads_leftwards):
        if is_isolated:
            pieces += [Markup("<bdi>{}</bdi>").format(text) for text in group]
        else:
            pieces.append(Markup("<span>{}</span>").format("".join(group)))
    return Markup("").join(pieces)


def _reads_leftwards(text: str) -> bool:
    return not text.isascii() and any(
        unicodedata.bidirectional(character) in ("R", "AL", "AN") for character in text
    )


def breakable(name: str) -> Markup:
    """Return a name of code that may be broken behind its points and underscores."""
    return Markup(re.sub("([._])", r"\1<wbr>", str(escape(name))))  # noqa: S704 - it is escaped


def json_html(text: str) -> Markup:
    """Return JSON with highlighted tokens. Text that is not JSON is returned unchanged.

    A string in a right-to-left script is isolated, so that it does not reverse its line.
    """
    pieces: list[str] = []
    end = 0
    for match in _JSON_TOKEN.finditer(text, 0, _MARKED):
        kind, token = match.lastgroup or "", match[0]
        pieces += (text[end : match.start()], _OPENS[kind], *_isolated(token), _CLOSES)
        end = match.end()
    return Markup("").join([*pieces, text[end:]])  # this escapes everything that is not markup


def _isolated(token: str) -> tuple[str, ...]:
    """Return a token. Its text is isolated if it may read from right to left."""
    if token.isascii():
        return (token,)
    end = '"' if len(token) > 1 and token.endswith('"') else ""
    return ('"', Markup("<bdi>"), token[1 : len(token) - len(end)], Markup("</bdi>"), end)


def _trimmed(value: float) -> str:
    """Format a number with one decimal, unless that is zero."""
    return _signed(f"{value:,.1f}".removesuffix(".0"))


def _signed(text: str) -> str:
    return text.replace("-", _MINUS, 1) if text.startswith("-") else text


# Possessive, and with an optional closing quote: no body makes it backtrack.
_STRING = r'"(?:[^"\\]|\\.)*+"?+'
_JSON_TOKEN = re.compile(
    rf"(?P<key>{_STRING})(?=\s*:)|(?P<string>{_STRING})"
    r"|(?P<number>-?\b\d+(?:\.\d+)?(?:[eE][+-]?\d+)?\b)|(?P<word>\b(?:true|false|null)\b)",
    re.ASCII,  # JSON has no digits of other scripts
)
_MARKED = 100_000
"""Characters that are highlighted. Text after them is plain."""
_OPENS = {
    "key": Markup('<span class="json-key">'),
    "string": Markup('<span class="json-string">'),
    "number": Markup('<span class="json-number">'),
    "word": Markup('<span class="json-word">'),
}
_CLOSES = Markup("</span>")

FILTERS: Mapping[str, Callable[..., Any]] = {
    "number": number,
    "compact": compact,
    "counted": counted,
    "bounded": bounded,
    "plural": plural,
    "duration": duration,
    "size": size,
    "iso": iso,
    "utc": utc,
    "id_parts": id_parts,
    "type_name": type_name,
    "breakable": breakable,
    "json_html": json_html,
    "title_html": title_html,
}
