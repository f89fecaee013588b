"""Says when naming the events of a body takes long."""

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
    return size > BIG_BYTES or sum(_count(body, mark) for mark in (b",", b"[", b"{")) > _MAX_VALUES


def _count(body: bytes, mark: bytes) -> int:
    """Return how often a byte is in a body; more than `_MAX_VALUES` count as one more than that.
    In 64 kB of text this takes 3 us, and `bytes.count` 30."""
    return len(body) - len(body.replace(mark, b"", _MAX_VALUES + 1))
