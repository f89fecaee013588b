"""Replay and discard of many events at once."""
