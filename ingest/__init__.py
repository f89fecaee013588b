"""Receive, store and show webhooks."""

__version__ = "0.1.0"
