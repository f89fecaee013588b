"""How many examples a property tries."""

import os

EFFORT = int(os.environ.get("TEST_EFFORT", "1"))
"""A multiple of what fits into a test run; set `TEST_EFFORT=20` for a night."""


def examples(quick: int) -> int:
    """As many as `quick`, times the effort."""
    return quick * EFFORT
