"""The signed test requests, and the documented bodies."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).parent.parent / "vectors"


@dataclass(frozen=True)
class Vector:
    """One request, and the status that it must be answered with."""

    name: str
    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes

    @property
    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """As ASGI gives them."""
        return [(name.lower().encode(), _bytes(value)) for name, value in self.headers]


def _bytes(value: str) -> bytes:
    """A header's value as it travels: Latin-1 where it can be, UTF-8 where it cannot."""
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode()


_lines = (_FOLDER / "awalchat.jsonl").read_text().splitlines()
_head = json.loads(_lines[0])
NOW: int = _head["now"]
SECRETS: list[str] = _head["secrets"]
VECTORS: list[Vector] = [
    Vector(
        name=line["name"],
        status=line["status"],
        headers=[(name, value) for name, value in line["headers"]],
        body=base64.b64decode(line["body_base64"]),
    )
    for line in map(json.loads, _lines[1:])
]
DOCUMENTED: list[bytes] = (_FOLDER / "documented.jsonl").read_bytes().splitlines()
