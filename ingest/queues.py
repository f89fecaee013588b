"""Names that the senders and the consumers of Celery messages share."""

TASK = "ingest.process"
LIVE = "events"
REPLAY = "replay"
"""Replays have a queue of their own, so that live events do not wait behind them."""


def overdue(queue: str) -> str:
    """Return the backlog queue: what the relay dispatches for `queue`.

    It is separate because this work is older. When the workers are late, it would otherwise wait
    behind everything that came later.
    """
    return f"{queue}.overdue"
