"""Durations in words, for pages and terminals."""

_UNITS = (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1))


def in_words(seconds: float) -> str:
    """Format a duration in one or two units: `9 s`, `3 min 20 s`, `2 d 4 h`."""
    whole = round(seconds)
    for unit, length, smaller, part in _UNITS:
        if whole >= length:
            rest = whole % length // part
            return f"{whole // length:,} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"
