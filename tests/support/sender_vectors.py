"""The signed requests of other senders: published by them, or computed by other software."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path

_FILE = Path(__file__).parent.parent / "vectors/senders.jsonl"


@dataclass(frozen=True)
class SenderVector:
    """One request, and whether its signature is good."""

    name: str
    secret: str
    url: str | None
    """The address as the sender knows it, where it is signed."""
    headers: list[tuple[bytes, bytes]]
    body: bytes
    is_valid: bool


def of_sender(sender: str) -> list[SenderVector]:
    """Return the vectors of one sender."""
    lines = map(json.loads, _FILE.read_text().splitlines())
    return [
        SenderVector(
            name=line["name"],
            secret=line["secret"],
            url=line["url"],
            headers=[(name.encode(), value.encode()) for name, value in line["headers"].items()],
            body=base64.b64decode(line["body_b64"]),
            is_valid=line["valid"],
        )
        for line in lines
        if line["sender"] == sender
    ]
