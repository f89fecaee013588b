"""Says when naming the events of a body takes long."""

from ingest import strict_json

BIG_BYTES = 128 * 1024
"""Plain text takes up to 30 ns a byte to name: 4 ms up to this size. Larger bodies are costly."""
_SMALL_BYTES = 16 * 1024
_MAX_VALUES = 5_000
"""An empty list takes 1.2 us, a key with a decimal 2.6: up to 13 ms for so many."""


def is_costly(body: bytes) -> bool:
    """Return whether naming a body may hold the event loop for more than some 10 ms."""
    size = len(body)
    if size <= _SMALL_BYTES:
        return False
    return size > BIG_BYTES or _values(body) > _MAX_VALUES


def _values(body: bytes) -> int:
    """Return about how many values there are; more than `_MAX_VALUES` of a kind count as one more
    than that."""
    marks = (b",", b"[", b"{")
    return sum(strict_json.count(body, mark, most=_MAX_VALUES + 1) for mark in marks)
