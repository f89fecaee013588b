"""What the sender was told, read while it still writes its journal."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A body that was answered 200."""

    digest: str
    at: float
    """Unix time of the answer."""


class JournalReader:
    """Reads on where it stopped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_to = 0

    def read_on(self) -> list[Acknowledged]:
        """Return what was answered 200 since the last call. A line that is being written is left to
        the next one."""
        with self._path.open("rb") as file:
            file.seek(self._read_to)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._read_to += len(whole) + len(newline)
        lines = [json.loads(line) for line in whole.splitlines()]
        return [
            Acknowledged(line["sha256"], line["at"]) for line in lines if line["answer"] == "200"
        ]
