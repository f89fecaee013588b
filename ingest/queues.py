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


def continued(queue: str) -> str:
    """Return the queue of what a worker has begun of `queue` and hands back, to be continued.

    It is separate from the backlog queue, where the relay adds nothing while much waits: a long
    piece of work is not to keep due retries from being dispatched.
    """
    return f"{queue}.continued"


def lanes(queue: str) -> tuple[str, str, str]:
    """Return all queues that a worker takes turns in for `queue`."""
    return queue, overdue(queue), continued(queue)
