"""Receives, stores and shows webhooks."""

__version__ = "0.1.0"
