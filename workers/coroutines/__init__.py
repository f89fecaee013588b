"""Async processors: many calls at once on one event loop in each worker process."""
