"""Names that the two sides of Redis share."""

TASK = "ingest.process"
LIVE = "events"
REPLAY = "replay"
"""Replays have a lane of their own, so that what is live does not wait behind them."""
