"""Replays and discards of many events at once."""
