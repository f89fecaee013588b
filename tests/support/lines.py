"""A logger that keeps what it is told."""

from typing import Any


class Lines:
    """In place of a module's `log`."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, dict[str, Any]]] = []

    def error(self, event: str, **fields: Any) -> None:
        """Keep a line of any level."""
        self.kept.append((event, fields))

    debug = info = warning = error

    @property
    def events(self) -> list[str]:
        """What was logged, by name."""
        return [event for event, _ in self.kept]
