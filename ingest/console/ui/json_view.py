"""Formatted JSON that keeps every number and text as it was sent."""

import json
import re

from ingest import strict_json

_LIMIT = 256 * 1024
"""Characters. A longer body is shown as it is."""
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|[{}\[\],:]|[^\s{}\[\],:"]+')
_INDENT = "  "
_OPENING, _CLOSING = ("{", "["), ("}", "]")


def pretty(body: str) -> str:
    """Return JSON with a line for each member, and with its escapes decoded.

    A body that is not JSON is returned unchanged.
    """
    if len(body) > _LIMIT:
        return body
    try:
        strict_json.loads(body.encode("utf-8", "surrogatepass"))
    except strict_json.InvalidJson:
        return body
    return "".join(_format(_TOKEN.findall(body)))


def _format(parts: list[str]) -> list[str]:
    lines: list[str] = []
    depth = 0
    for position, part in enumerate(parts):
        following = parts[position + 1] if position + 1 < len(parts) else ""
        if part in _OPENING:
            depth += 1
            lines.append(part if following in _CLOSING else part + _new_line(depth))
        elif part in _CLOSING:
            depth -= 1
            is_empty = parts[position - 1] in _OPENING
            lines.append(part if is_empty else _new_line(depth) + part)
        elif part == ",":
            lines.append(part + _new_line(depth))
        else:
            lines.append(": " if part == ":" else _decode_escapes(part))
    return lines


def _new_line(depth: int) -> str:
    return "\n" + _INDENT * depth


def _decode_escapes(literal: str) -> str:
    if "\\u" not in literal:
        return literal
    decoded = json.dumps(json.loads(literal), ensure_ascii=False)
    return literal if _has_surrogate(decoded) else decoded


def _has_surrogate(text: str) -> bool:
    """Return whether half of a surrogate pair stands alone. It cannot be encoded."""
    return any("\ud800" <= character <= "\udfff" for character in text)
