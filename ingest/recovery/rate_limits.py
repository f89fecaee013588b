"""How long GitHub wants to be left alone, by its answer.

The rules are those of its documentation ("Rate limits for the REST API", "Exceeding the rate
limit").
"""

from collections.abc import Mapping

_UNSAID_S = 60.0
"""The documentation's wait after a limit whose answer names none."""
_MARGIN_S = 1.0
"""The reset is a whole second, and two clocks differ."""


def wait_s(status: int, headers: Mapping[str, str], body: str, *, now: float) -> float | None:
    """Return how long to wait before the same request, in seconds; None: no limit was reached.

    Args:
        status: of the answer.
        headers: of the answer; names are found in any case.
        body: of the answer.
        now: Unix time in seconds.
    """
    if status not in (403, 429):
        return None
    retry_after, reset = headers.get("Retry-After", ""), headers.get("X-RateLimit-Reset", "")
    if retry_after.isdecimal():
        return float(retry_after)
    if headers.get("X-RateLimit-Remaining") == "0" and reset.isdecimal():
        return max(0.0, float(reset) - now) + _MARGIN_S
    if status == 429 or "rate limit" in body.lower():
        return _UNSAID_S
    return None
