"""JSON laid out for reading, with every number and text as it was sent."""

import json
import re

from ingest import strict_json

_LIMIT = 256 * 1024
"""Longer bodies are shown as they are."""
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|[{}\[\],:]|[^\s{}\[\],:"]+')
_INDENT = "  "
_OPENING, _CLOSING = ("{", "["), ("}", "]")


def pretty(body: str) -> str:
    """`body` with a line for each member, and escapes spelled out. What is no JSON stays as it
    is."""
    if len(body) > _LIMIT:
        return body
    try:
        strict_json.loads(body.encode("utf-8", "surrogatepass"))
    except strict_json.InvalidJson:
        return body
    return "".join(_laid_out(_TOKEN.findall(body)))


def _laid_out(tokens: list[str]) -> list[str]:
    pieces: list[str] = []
    depth = 0
    for position, each in enumerate(tokens):
        following = tokens[position + 1] if position + 1 < len(tokens) else ""
        if each in _OPENING:
            depth += 1
            pieces.append(each if following in _CLOSING else each + _line(depth))
        elif each in _CLOSING:
            depth -= 1
            is_empty = tokens[position - 1] in _OPENING
            pieces.append(each if is_empty else _line(depth) + each)
        elif each == ",":
            pieces.append(each + _line(depth))
        else:
            pieces.append(": " if each == ":" else _readable(each))
    return pieces


def _line(depth: int) -> str:
    return "\n" + _INDENT * depth


def _readable(literal: str) -> str:
    if "\\u" not in literal:
        return literal
    spelled = json.dumps(json.loads(literal), ensure_ascii=False)
    return spelled if _is_whole(spelled) else literal


def _is_whole(text: str) -> bool:
    """Whether no half of a surrogate pair stands alone."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
