"""Names that the two sides of Redis share."""

TASK = "ingest.process"
LIVE = "events"
REPLAY = "replay"
"""Replays have a lane of their own, so that what is live does not wait behind them."""


def overdue(queue: str) -> str:
    """The lane of what the relay dispatches for `queue`. Apart, because it is the older work: with
    the workers behind, it would wait behind everything that came later."""
    return f"{queue}.overdue"
